"""The whole way in one process: a launch digest is computed and registered; the default policy affirms the guest that
was started from those artifacts, and no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click.testing
import pytest

from kbs.attestation.model import (
    Binding,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Tier,
    VerifierOptions,
)
from kbs.attestation.service import AttestationService, VerificationRequest
from kbs.attestation.verifiers.snp import build
from kbs.client.attesters.snp import SoftwareSnp
from kbs.clock import system_clock
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from rvps import cli, value_set
from rvps.service import EmbeddedProvider
from tests.rvps.compute.images import kernel, sev_firmware
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
BOUND = b"challenge"


class _Shipped:
    """The default policies, always active."""

    def __init__(self) -> None:
        self._shipped = Shipped.load()

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        return self._shipped.policy(f"{kind}/{policy_id.removeprefix('default_')}")


class _Given:
    """Endorsements at hand."""

    def __init__(self, endorsements: Endorsements) -> None:
        self._endorsements = endorsements

    def cached(self, needs: Sequence[EndorsementNeed]) -> Endorsements | None:
        return self._endorsements

    def fetch(self, needs: Sequence[EndorsementNeed]) -> Endorsements:
        return self._endorsements


@pytest.fixture(scope="module")
def machine() -> SoftwareSnp:
    return SoftwareSnp()


@pytest.fixture
def provider() -> EmbeddedProvider:
    """What is known of the hardware, in any release."""
    found = EmbeddedProvider(MemoryStore(), conflict=Conflict, unavailable=Unavailable)
    known = {"snp_bootloader": [4], "snp_microcode": [219], "snp_snp_svn": [24], "snp_tee_svn": [0]}
    _register(found, known)
    return found


def _register(provider: EmbeddedProvider, values: Mapping[str, Any]) -> None:
    payload = base64.b64encode(json.dumps(dict(values)).encode()).decode()
    provider.register({"version": "0.1.0", "type": "sample", "payload": payload}, issuer="admin:alice#1", at=AT)


def _computed(directory: Path, *options: str) -> value_set.ValueSet:
    (directory / "OVMF.fd").write_bytes(sev_firmware())
    (directory / "vmlinuz").write_bytes(kernel())
    out = directory / "values.json"
    arguments = ["compute", "snp", "--ovmf", str(directory / "OVMF.fd"), "--vcpu-type", "EPYC-Milan", "-o", str(out)]
    files = ["--kernel", str(directory / "vmlinuz"), "--append", "quiet"]
    found = click.testing.CliRunner().invoke(cli.main, [*arguments, *files, *options])
    assert found.exit_code == 0, found.output
    return value_set.read(out.read_bytes().rstrip(b"\n"))


def _tier(provider: EmbeddedProvider, machine: SoftwareSnp, measurement: bytes) -> tuple[Tier, Mapping[str, int]]:
    verifier = build(VerifierOptions(machine.options, machine.anchors))
    evidence = Evidence(Tee.SNP, machine.evidence(BOUND, measurement=measurement))
    given = verifier.endorsements_from(evidence, machine.endorsements)
    service = AttestationService({Tee.SNP: verifier}, _Given(given), WasmEngine(system_clock), _Shipped(), provider)
    (appraisal,) = service.attest([VerificationRequest(evidence, Binding(BOUND))], AT).result.appraisals
    return appraisal.status, appraisal.vector


def test_a_guest_of_exactly_this_build_is_affirmed_and_another_is_not(
    tmp_path: Path, provider: EmbeddedProvider, machine: SoftwareSnp
) -> None:
    computed = _computed(tmp_path, "--vcpus", "2,4")
    two, four = (bytes.fromhex(value) for value in computed.values["snp_launch_measurement"])
    assert _tier(provider, machine, two)[0] is not Tier.AFFIRMING  # nobody has stated it
    _register(provider, computed.values)
    for measurement in (two, four):
        assert _tier(provider, machine, measurement)[0] is Tier.AFFIRMING
    (eight,) = _computed(tmp_path, "--vcpus", "8").values["snp_launch_measurement"]
    (loud,) = _computed(tmp_path, "--vcpus", "2", "--append", "debug").values["snp_launch_measurement"]
    for other in (bytes.fromhex(eight), bytes.fromhex(loud), bytes(48)):
        status, vector = _tier(provider, machine, other)
        assert status is Tier.WARNING  # upstream's number for executables that nobody has stated
        assert vector["executables"] == 33


def test_the_document_names_the_artifacts(tmp_path: Path) -> None:
    computed = _computed(tmp_path, "--vcpus", "1")
    assert computed.tee == "snp"
    assert [artifact.name for artifact in computed.artifacts] == ["OVMF.fd", "vmlinuz"]
    assert computed.series == "snp-guest"
