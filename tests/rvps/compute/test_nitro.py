"""The output of nitro-cli, taken as it is or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rvps.compute.nitro import read_measurements
from rvps.errors import ArtifactUnusable

PCRS = {f"PCR{number}": f"{number + 1:x}" * 96 for number in (0, 1, 2)}


def printed(**changes: Any) -> bytes:
    found = {"HashAlgorithm": "Sha384 { ... }", **PCRS, **changes}
    return json.dumps({"Measurements": {name: value for name, value in found.items() if value is not None}}).encode()


def test_the_registers_of_an_image() -> None:
    assert read_measurements(printed()) == {f"nitro_pcr{n}": PCRS[f"PCR{n}"] for n in (0, 1, 2)}
    assert read_measurements(printed(PCR8="8" * 96))["nitro_pcr8"] == "8" * 96


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{}", b"{", b'{"Measurements": []}', b'{"Measurements": 1, "Measurements": {}}', b"[" * 9000,
        printed(PCR1=None), printed(PCR2=1), printed(PCR0="0" * 96), printed(PCR0="A" * 96), printed(PCR0="a" * 95),
        printed(PCR8="x"), printed(PCR8=None, HashAlgorithm="Sha256"), printed(HashAlgorithm=None),
        printed(PCR0="1" * 95 + "\uff11"),
    ],
    ids=(
        "empty", "array", "bare", "cut", "no-object", "twice", "deep", "missing", "number", "debug", "upper", "short",
        "pcr8", "sha256", "no-algorithm", "wide-digit",
    ),
)  # fmt: skip
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(ArtifactUnusable):
        read_measurements(raw)
