"""The measurement: published known answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.attestation.verifiers.se.measurement import TAGS_SIZE, measure

VECTORS = Path(__file__).parents[4] / "vectors" / "se"
ANSWERS = json.loads((VECTORS / "measurement-kat.json").read_text())


def octets(answer: dict[str, str | None], *names: str) -> bytes:
    return b"".join(bytes.fromhex(answer[name] or "") for name in names)


@pytest.mark.parametrize("answer", ANSWERS, ids=["full", "empty"])
def test_known_answers(answer: dict[str, str | None]) -> None:
    tags = octets(answer, "pld", "ald", "tld", "tag")
    assert len(tags) == TAGS_SIZE
    found = measure(
        octets(answer, "measurement_key"),
        tags,
        octets(answer, "cuid"),
        octets(answer, "user_data"),
        octets(answer, "nonce"),
        octets(answer, "additional_data"),
    )
    assert found == octets(answer, "measurement")


def test_lengths_keep_the_parts_apart() -> None:
    """User data that takes the place of nonce and additional data measures to something else."""
    parts = (b"k" * 64, b"t" * TAGS_SIZE, b"c" * 16)
    whole = measure(*parts, b"user" + b"nonce", b"", b"more")
    assert measure(*parts, b"user", b"nonce", b"more") != whole
    assert measure(*parts, b"user", b"noncemore", b"") != measure(*parts, b"user", b"nonce", b"more")
