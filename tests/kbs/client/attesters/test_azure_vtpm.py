"""Software VMs on Azure: a folder makes them the same ones again, and what they send is what Azure's send."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.attestation.model import Binding, Evidence, VerifierOptions
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx, tdreport
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.test_root import TestRoot
from tests.fakes.case_files import FACTORIES

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce").digest()
VECTORS = Path(__file__).parents[3] / "vectors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.mark.parametrize("make", [SoftwareAzSnp, SoftwareAzTdx])
def test_a_folder_remembers_the_machine(make: type[SoftwareAzSnp] | type[SoftwareAzTdx], folder: Path) -> None:
    """A broker that was given the anchors takes what another process makes from the same folder."""
    anchors = make(TestRoot(folder)).anchors
    later = make(TestRoot(folder))
    verifier = FACTORIES[later.tee](VerifierOptions({}, anchors))
    evidence = Evidence(later.tee, later.evidence(NONCE))
    assert verifier.verify(evidence, verifier.endorsements_from(evidence, later.endorsements), Binding(NONCE), AT)


@pytest.mark.parametrize("product", ["Milan", "Turin"])
def test_a_folder_remembers_the_chip(product: str, folder: Path) -> None:
    first, later = (SoftwareSnp(TestRoot(folder), product=product) for _ in range(2))
    assert first.anchors == later.anchors
    assert first.vek_key.private_numbers() == later.vek_key.private_numbers()
    assert SoftwareSnp(product=product).vek_key.private_numbers() != first.vek_key.private_numbers()


@pytest.mark.parametrize(("tee", "make"), [("az-snp-vtpm", SoftwareAzSnp), ("az-tdx-vtpm", SoftwareAzTdx)])
def test_evidence_has_the_shape_of_real_evidence(tee: str, make: type[SoftwareAzSnp] | type[SoftwareAzTdx]) -> None:
    for version in (0, 1):
        real = json.loads((VECTORS / tee / f"evidence-v{version}.json").read_text())
        assert _shape(make(version=version).evidence(b"challenge")) == _shape(real)


def _shape(value: object) -> object:
    """Names and types; texts and lists of numbers by length, but for certificates and TD quotes."""
    if isinstance(value, dict):
        return {name: type(each) if name in ("vcek", "td_quote") else _shape(each) for name, each in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], list | str):
        return [_shape(each) for each in value]
    return (type(value), len(value)) if isinstance(value, list | str) else type(value)


def test_the_tdreport_is_laid_out_as_a_real_one() -> None:
    """From the real quote's body the make-believe module makes the real TDREPORT, but for CPUSVN, MAC and TCB flags."""
    evidence = json.loads((VECTORS / "az-tdx-vtpm" / "evidence-v1.json").read_text())
    real = base64.urlsafe_b64decode(evidence["hcl_report"])[32:1056]
    body = base64.urlsafe_b64decode(evidence["td_quote"])[48:632]
    tcb = {0: real[256:264], 128: real[384:400]}
    made = tdreport(body, tcb=tcb, mac=real[224:256])
    assert made[:16] + made[32:] == real[:16] + real[32:]
