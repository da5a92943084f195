"""JSON of strangers: what is decoded can be written, and reads the same again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs import strict_json
from kbs.errors import MalformedMessage, PayloadTooLarge
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Decode; refuse only as documented."""
    with contextlib.suppress(MalformedMessage, PayloadTooLarge):
        value = strict_json.decode(data)
        if strict_json.decode(strict_json.encode(value)) != value:
            raise AssertionError("a value changed on its way")


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("sample/synthetic/*.json", "cca/rvstore.json", "rcar/*.json")
