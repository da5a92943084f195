"""The sample TEEs: off by default, exact report data, constants where the evidence says nothing."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import sample
from kbs.errors import BindingMismatch, ConfigInvalid, EvidenceMalformed, EvidenceRejected, TeeDisabled
from kbs.protocol.tee import Tee
from tests.fakes.case_files import load
from tests.fakes.sample import SoftwareSample

CASES = sorted((Path(__file__).parents[4] / "vectors" / "sample" / "synthetic").glob("*.json"))
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "sample_bad_b64": EvidenceMalformed,
    "sample_device_ok_default": TeeDisabled,
    "sample_mismatch": BindingMismatch,
    "sample_ok_default": TeeDisabled,
    "sample_padded": BindingMismatch,
}
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = bytes(range(48))


def verify(binding: Binding, is_device: bool = False, **changes: Any) -> dict[str, Any]:
    attester = SoftwareSample(is_device=is_device)
    build = sample.build_device if is_device else sample.build
    verifier = build(VerifierOptions(attester.options, attester.anchors))
    body = {name: value for name, value in {**attester.evidence(NONCE), **changes}.items() if value is not ...}
    (found,) = verifier.verify(Evidence(attester.tee, body), Endorsements(), binding, AT)
    assert found.tee is attester.tee
    return dict(found.claims)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    if case.expect["authentic"]:
        (found,) = case.verify()
        assert found.device_class == ("gpu" if case.evidence.tee is Tee.SAMPLE_DEVICE else "cpu")
    else:
        with pytest.raises(REFUSALS[case.name]):
            case.verify()


def test_claims_are_the_fields_constants_when_absent() -> None:
    assert verify(Binding(NONCE)) == {
        "svn": "1",
        "report_data": base64.b64encode(NONCE).decode(),
        "launch_digest": "abcde",
        "platform_version": {"major": 1, "minor": 4},
        "debug": False,
        "revocation": "not_applicable",
        "binding": "checked",
    }


def test_present_members_become_the_claims() -> None:
    claims = verify(Binding(NONCE), debug=True, launch_digest="fff", platform_version={"major": 2, "minor": 0}, svn="7")
    assert claims.items() >= {"debug": True, "launch_digest": "fff", "svn": "7"}.items()
    assert claims["platform_version"] == {"major": 2, "minor": 0}


def test_init_data_is_a_claim_when_given() -> None:
    assert verify(Binding(NONCE, b"\1\2"))["init_data"] == "AQI="
    assert "init_data" not in verify(Binding(NONCE))


def test_devices_claim_only_what_the_field_knows() -> None:
    assert set(verify(Binding(NONCE, b"\1"), is_device=True)) == {"svn", "report_data", "revocation", "binding"}


@pytest.mark.parametrize(
    "changes",
    [
        {"svn": 1}, {"svn": ...}, {"svn": "x" * 2000}, {"report_data": ...}, {"report_data": 1}, {"report_data": "é"},
        {"report_data": "AA=A"}, {"report_data": "A" * 1024}, {"debug": 1}, {"debug": None}, {"launch_digest": None},
        {"platform_version": 1}, {"platform_version": {"major": 1}}, {"platform_version": {"major": 1, "minor": True}},
        {"platform_version": {"major": 1, "minor": -1}}, {"platform_version": {"major": 1, "minor": 1, "patch": 1}},
    ],
)  # fmt: skip
def test_malformed_members_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(Binding(NONCE), **changes)


@pytest.mark.parametrize("build", [sample.build, sample.build_device])
@pytest.mark.parametrize("options", [{}, {"enable_sample": False}])
def test_off_unless_switched_on(build: Any, options: dict[str, Any]) -> None:
    verifier = build(VerifierOptions(options))
    evidence = Evidence(Tee.SAMPLE, SoftwareSample().evidence(NONCE))
    with pytest.raises(TeeDisabled):
        verifier.needs(evidence)
    with pytest.raises(TeeDisabled):
        verifier.verify(evidence, Endorsements(), Binding(NONCE), AT)


@pytest.mark.parametrize(
    "options",
    [
        VerifierOptions({"enable_sample": 1}),
        VerifierOptions({"enable_sample": "true"}),
        VerifierOptions({"other": True}),
        VerifierOptions({}, {"ark": "x"}),
    ],
)
def test_unusable_options_are_refused_at_build(options: VerifierOptions) -> None:
    with pytest.raises(ConfigInvalid):
        sample.build(options)
