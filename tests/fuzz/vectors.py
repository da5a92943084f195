"""Seeds from tests/vectors."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_VECTORS = Path(__file__).parents[1] / "vectors"
_MAX_SEED = 64 << 10  # what is longer teaches a fuzzer nothing and slows it down


def files(*patterns: str) -> Iterator[bytes]:
    """Contents of the files that match, decompressed if they end in `.gz` and cut at 64 KiB."""
    for pattern in patterns:
        for path in sorted(_VECTORS.glob(pattern)):
            data = path.read_bytes()
            yield (gzip.decompress(data) if path.suffix == ".gz" else data)[:_MAX_SEED]


def cases(tee: str) -> Iterator[Any]:
    """The synthetic cases of a TEE, as their files hold them."""
    for path in sorted(_VECTORS.glob(f"{tee}/synthetic/*.json")):
        yield json.loads(path.read_text())
