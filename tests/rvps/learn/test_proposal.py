"""What may be learnt from evidence, and what must not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.errors import ArtifactUnusable
from rvps.learn.evidence import Learnt, read
from rvps.learn.proposal import propose, table
from tests.learn_table import made
from tests.opa_binary import opa

__all__ = ["opa"]

SNP: dict[str, Any] = {
    "measurement": "ab" * 48,
    "reported_tcb_bootloader": 3,
    "reported_tcb_microcode": 72,
    "reported_tcb_snp": 0,
    "reported_tcb_tee": 0,
    "platform_smt_enabled": True,
    "policy_abi_major": 0,
    "provisional_firmware": False,
    "vmpl": 0,
    "policy_debug_allowed": False,
    "policy_migrate_ma": False,
    "binding": "checked",
    "revocation": "checked",
}
KERNEL = {
    "type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
    "details": {"device_paths": ["File(kernel)"]},
    "digests": [{"alg": "SHA-384", "digest": "aa" * 48}],
}
TDX: dict[str, Any] = {
    "quote": {
        "header": {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
        "body": {
            "mr_td": "11" * 48,
            "rtmr_1": "22" * 48,
            "rtmr_2": "33" * 48,
            "xfam": "e702060000000000",
            "td_attributes": "0000001000000000",
        },
    },
    "td_attributes": {"debug": False, "migratable": False, "septve_disable": True},
    "uefi_event_logs": [{}, KERNEL, "x"],
    "binding": "checked",
}


def changed(claims: dict[str, Any], path: list[str], value: object) -> dict[str, Any]:
    found = copy.deepcopy(claims)
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return found


def test_the_table_is_that_of_the_policy(opa: Path) -> None:
    """After a change of policies/lib/cpu.rego: python -m tests.learn_table."""
    assert made(opa) == table()


def test_exactly_the_claims_that_policies_look_up() -> None:
    found = propose(Learnt("snp", {**SNP, "chip_id": "cd" * 64}))
    assert found.values() == {
        "snp_launch_measurement": ["ab" * 48],
        "snp_bootloader": [3],
        "snp_microcode": [72],
        "snp_snp_svn": [0],
        "snp_tee_svn": [0],
        "snp_smt_enabled": True,
        "snp_guest_abi_major": 0,
    }
    assert set(found.absent) >= {"platform_tsme_enabled", "policy_abi_minor"}


def test_what_the_policy_works_out_of_an_event_log() -> None:
    found = propose(Learnt("tdx", TDX)).values()
    assert found["tdvfkernel"] == "aa" * 48
    assert found["rtmr_1"] == ["22" * 48]
    assert "tdvfkernelparams" not in found
    twice = {**TDX, "uefi_event_logs": [KERNEL, {**KERNEL, "digests": [{"digest": "bb" * 48}]}]}
    assert "tdvfkernel" not in propose(Learnt("tdx", twice)).values()


def test_what_is_known_already() -> None:
    known = {"snp_launch_measurement": ["cd" * 48, "ab" * 48], "snp_bootloader": [4], "snp_smt_enabled": True}
    lines = {line.name: line.known for line in propose(Learnt("snp", SNP), known).lines}
    assert lines["snp_launch_measurement"]
    assert lines["snp_smt_enabled"]
    assert not lines["snp_bootloader"]
    assert not lines["snp_microcode"]


@pytest.mark.parametrize(
    ("tee", "claims", "reason"),
    [
        ("sample", {"launch_digest": "abc"}, "proves nothing"),
        ("sampledevice", {}, "proves nothing"),
        ("toaster", SNP, "no policy looks up"),
        ("nitro", {"document": "enclaves"}, "no policy looks up"),
        ("snp", {**SNP, "policy_debug_allowed": True}, "policy_debug_allowed is not as it must be"),
        ("snp", {**SNP, "policy_debug_allowed": 0}, "policy_debug_allowed"),
        ("snp", {name: SNP[name] for name in SNP if name != "policy_debug_allowed"}, "policy_debug_allowed"),
        ("snp", {**SNP, "vmpl": 1}, "vmpl"),
        ("snp", {**SNP, "vmpl": False}, "vmpl"),
        ("snp", {**SNP, "provisional_firmware": True}, "provisional_firmware"),
        ("snp", {**SNP, "measurement": "00" * 48}, "measures nothing"),
        ("snp", {**SNP, "measurement": "ff" * 48}, "measures nothing"),
        ("snp", {**SNP, "measurement": "A" * 64}, "measures nothing"),
        ("snp", {**SNP, "measurement": ""}, "measures nothing"),
        ("tdx", changed(TDX, ["td_attributes", "debug"], True), "td_attributes.debug"),
        ("tdx", changed(TDX, ["td_attributes", "septve_disable"], False), "septve_disable"),
        ("tdx", changed(TDX, ["quote", "body", "td_attributes"], "01"), "td_attributes"),
        ("tdx", changed(TDX, ["quote", "body"], 5), "td_attributes"),
        ("tpm", {"boot_measured": True}, "none of the claims"),
        ("tpm", {"boot_measured": False, "pcr11": "ab" * 32}, "boot_measured"),
    ],
    ids=range(20),
)
def test_what_is_never_learnt(tee: str, claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        propose(Learnt(tee, claims))


def test_a_waived_condition() -> None:
    claims = changed(TDX, ["td_attributes", "septve_disable"], False)
    assert propose(Learnt("tdx", {**claims, "septve_waived": True})).lines


def test_nothing_from_outside_the_image_may_be_learnt() -> None:
    pcrs = {"document": "nitrotpm", "nitrotpm_pcr4": "ab" * 48, "nitrotpm_pcr7": "cd" * 48}
    found = propose(Learnt("nitro", {**pcrs, "nitrotpm_pcr12": "00" * 48})).values()
    assert found["nitrotpm_pcr12"] == ["00" * 48]
    with pytest.raises(ArtifactUnusable, match="measures nothing"):
        propose(Learnt("nitro", {**pcrs, "nitrotpm_pcr4": "00" * 48, "nitrotpm_pcr12": "00" * 48}))


def test_forms_of_evidence() -> None:
    appraised = {"authentic": True, "tee": "snp", "submods": {"cpu0": {"claims": SNP}, "gpu0": {}}}
    found = read(json.dumps(appraised).encode())
    assert (found.tee, found.claims, found.doubts) == (
        "snp",
        SNP,
        ("claims of 1 devices beside the CPU are not learnt",),
    )
    recorded = {"tee": "snp", "expect": {"authentic": True, "claims": {**SNP, "binding": "not_checked"}}}
    assert any("not bound" in doubt for doubt in read(json.dumps(recorded).encode()).doubts)
    for bare in (SNP, {"snp": SNP}):
        found = read(json.dumps(bare).encode(), "snp")
        assert found.claims == SNP
        assert any("verifier" in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    ("document", "tee"),
    [
        ("[]", "snp"),
        ("{", "snp"),
        ('{"snp": {}, "snp": {}}', "snp"),
        ("{}", None),
        ("{}", "snp"),
        ('{"snp": 5}', "snp"),
        ('{"authentic": false, "tee": "snp", "submods": {}}', None),
        ('{"authentic": false, "reason": "signature"}', "snp"),
        ('{"authentic": "true", "tee": "snp", "submods": {"cpu0": {"claims": {"a": 1}}}}', None),
        ('{"authentic": true, "tee": "snp", "submods": {"cpu0": {}}}', None),
        ('{"authentic": true, "tee": 5, "submods": {"cpu0": {"claims": {"a": 1}}}}', None),
        ('{"authentic": true, "tee": "snp", "submods": {"cpu0": {"claims": {"a": 1}}}}', "tdx"),
        ('{"tee": "snp", "expect": {"authentic": false}}', None),
        ('{"tee": "snp", "expect": {"authentic": true}}', None),
        ('{"tee": "snp", "expect": []}', None),
    ],
    ids=range(15),
)
def test_documents_that_nothing_is_learnt_from(document: str, tee: str | None) -> None:
    with pytest.raises(ArtifactUnusable):
        read(document.encode(), tee)


@settings(max_examples=50)
@given(
    st.sampled_from(sorted(table())),
    st.dictionaries(st.sampled_from(["measurement", "quote", "pcr11", "debug", "vmpl"]), st.integers() | st.text()),
)
def test_any_claims_are_learnt_or_refused(tee: str, claims: dict[str, Any]) -> None:
    try:
        found = propose(Learnt(tee, claims))
    except ArtifactUnusable:
        return
    assert found.lines
