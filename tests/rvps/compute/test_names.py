"""Computed values have the names that the shipped policies look up."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvps.compute.init_data import NAME
from rvps.compute.names import PCR_TEES, pcr_name
from rvps.compute.pcr import BANKS
from rvps.learn.proposal import table

POLICIES = Path(__file__).parents[3] / "policies/evidence"
LOOKED_UP = [("tpm", 11), ("az-snp-vtpm", 11), ("az-tdx-vtpm", 11), ("nitro", 4), ("nitro", 7), ("nitro", 12)]


@pytest.mark.parametrize(("tee", "number"), LOOKED_UP)
def test_pcrs(tee: str, number: int) -> None:
    rows = table()["nitro:nitrotpm" if tee == "nitro" else tee]["learnt"]
    found = {row["name"]: row["claim"] for row in rows}
    name = pcr_name(tee, number)
    assert name in found
    claim = found[name] if isinstance(found[name], str) else found[name][-1]
    assert claim.endswith(name.split("_")[-1])


def test_secure_execution() -> None:
    assert {row["name"] for row in table()["se"]["learnt"]} == {"se_tag", "se_image_phkh", "se_attestation_phkh"}


def test_init_data() -> None:
    assert f'["init_data", "in", "{NAME}"]' in (POLICIES / "init-data.rego").read_text()


def test_banks() -> None:
    assert set(PCR_TEES.values()) <= set(BANKS)
