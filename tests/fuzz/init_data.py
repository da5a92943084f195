"""Init data: TOML of strangers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from kbs.attestation.init_data import parse_init_data
from kbs.errors import MalformedMessage
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(MalformedMessage, UnicodeDecodeError):
        parse_init_data(data.decode())


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    yield b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"aa.toml" = "[token_configs]"\n'
    for text in vectors.files("initdata/initdata-vectors.json"):
        yield from (value.encode() for value in _texts(json.loads(text)))


def _texts(value: object) -> Iterator[str]:
    """Every text in the vectors that looks like a document."""
    if isinstance(value, str) and "algorithm" in value:
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)
