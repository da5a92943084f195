"""The whole way in one process: values are computed and registered; the default policy affirms the guest that was
started from those artifacts, and no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
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
from kbs.attestation.verifiers.snp import build as build_snp
from kbs.attestation.verifiers.tdx import build as build_tdx
from kbs.client.attesters.event_log import ACTION, SoftwareEventLog
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.clock import system_clock
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from rvps import cli, value_set
from rvps.service import EmbeddedProvider
from tests.architecture.documents import ROOT
from tests.rvps.compute.images import kernel, sev_firmware, tdx_firmware
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
    """What `rvps compute` writes; the artifacts lie in `directory`."""
    (directory / "OVMF.amdsev.fd").write_bytes(sev_firmware())
    (directory / "OVMF.fd").write_bytes(tdx_firmware())
    (directory / "vmlinuz").write_bytes(kernel())
    out = directory / "values.json"
    files = [str(directory / word) if (directory / word).is_file() else word for word in options]
    found = click.testing.CliRunner().invoke(cli.main, ["compute", *files, "-o", str(out)])
    assert found.exit_code == 0, found.output
    return value_set.read(out.read_bytes().strip())


@cache
def _engine() -> WasmEngine:
    """One for all: it compiles the policy once."""
    return WasmEngine(system_clock)


def _appraised(
    provider: EmbeddedProvider, machine: SoftwareSnp | SoftwareTdx, evidence: Any
) -> tuple[Tier, Mapping[str, int]]:
    build = build_snp if machine.tee is Tee.SNP else build_tdx
    verifier = build(VerifierOptions(machine.options, machine.anchors))
    given = verifier.endorsements_from(Evidence(machine.tee, evidence), machine.endorsements)
    service = AttestationService({machine.tee: verifier}, _Given(given), _engine(), _Shipped(), provider)
    request = VerificationRequest(Evidence(machine.tee, evidence), Binding(BOUND))
    (appraisal,) = service.attest([request], AT).result.appraisals
    return appraisal.status, {name: appraisal.vector[name] for name in ("configuration", "executables", "hardware")}


SNP = ("snp", "--ovmf", "OVMF.amdsev.fd", "--vcpu-type", "EPYC-Milan", "--kernel", "vmlinuz", "--append", "quiet")


def test_an_snp_guest_of_exactly_this_build_is_affirmed_and_another_is_not(
    tmp_path: Path, provider: EmbeddedProvider, machine: SoftwareSnp
) -> None:
    def appraised(measurement: str) -> tuple[Tier, Mapping[str, int]]:
        evidence = machine.evidence(BOUND, measurement=bytes.fromhex(measurement))
        return _appraised(provider, machine, evidence)

    computed = _computed(tmp_path, *SNP, "--vcpus", "2,4")
    two, four = computed.values["snp_launch_measurement"]
    assert appraised(two)[1]["executables"] == 33  # nobody has stated it
    _register(provider, computed.values)
    for measurement in (two, four):
        assert appraised(measurement) == (Tier.AFFIRMING, {"configuration": 3, "executables": 3, "hardware": 2})
    (eight,) = _computed(tmp_path, *SNP, "--vcpus", "8").values["snp_launch_measurement"]
    (loud,) = _computed(tmp_path, *SNP, "--vcpus", "2", "--append", "debug").values["snp_launch_measurement"]
    for other in (eight, loud, "00" * 48):
        status, vector = appraised(other)
        assert status is Tier.WARNING  # upstream's number for executables that nobody has stated
        assert vector["executables"] == 33


def _boot(raw: bytes, command_line: str) -> SoftwareEventLog:
    """What a TD logs that QEMU starts with this kernel, as QEMU changes it, and without an initrd."""
    header = bytearray(raw)
    header[0x210:0x212] = b"\xb0\x81"
    header[0x224:0x22C] = bytes.fromhex("00fe000000000200")
    checksum, entry = 0x58 + 64, 0x58 + 112 + 4 * 8
    log = SoftwareEventLog()
    log.image(2, bytes(header[:checksum] + header[checksum + 4 : entry] + header[entry + 8 :]), "kernel")
    log.measure(2, ACTION, b"Calling EFI Application from Boot Option")
    log.separator(2)
    log.command_line(3, command_line)
    log.measure(2, ACTION, b"Exit Boot Services Invocation")
    log.measure(2, ACTION, b"Exit Boot Services Returned with Success")
    return log


def test_a_tdx_guest_of_exactly_this_build_is_affirmed_and_another_is_not(
    tmp_path: Path, provider: EmbeddedProvider
) -> None:
    computed = _computed(tmp_path, "tdx", "--firmware", "OVMF.fd", "--kernel", "vmlinuz", "--cmdline", "quiet")
    _register(provider, {"xfam": ["e71a060000000000"], **computed.values})
    (mr_td,) = computed.values["mr_td"]
    root = TestRoot()

    def appraised(raw: bytes, command_line: str, firmware: str = mr_td) -> Mapping[str, int]:
        machine = SoftwareTdx(root, log=_boot(raw, command_line))
        status, vector = _appraised(
            provider, machine, machine.evidence(BOUND, fields={"mr_td": bytes.fromhex(firmware)})
        )
        assert (status is Tier.AFFIRMING) == (vector["executables"] == 3 and vector["hardware"] == 2)
        return vector

    assert appraised(kernel(), "quiet") == {"configuration": 2, "executables": 3, "hardware": 2}
    assert appraised(kernel(b"another"), "quiet")["executables"] == 33
    assert appraised(kernel(), "debug")["executables"] == 33
    assert appraised(kernel(), "quiet", "7d" * 48)["hardware"] == 97


def test_policies_look_for_the_computed_names(tmp_path: Path) -> None:
    rows = (ROOT / "policies/lib/cpu.rego").read_text()
    snp = _computed(tmp_path, *SNP, "--vcpus", "1")
    tdx = _computed(tmp_path, "tdx", "--firmware", "OVMF.fd", "--kernel", "vmlinuz", "--cmdline", "quiet")
    for name in (*snp.values, *tdx.values, "sgx_mr_enclave", "nitro_pcr0", "nitro_pcr1", "nitro_pcr2", "nitro_pcr8"):
        assert f'"{name}"]' in rows
    assert [artifact.name for artifact in snp.artifacts] == ["OVMF.amdsev.fd", "vmlinuz"]
