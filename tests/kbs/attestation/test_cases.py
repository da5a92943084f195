"""Case files: the published ones come out right, and the judge notices when they would not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.cases import DefaultPolicies, Judged, parse_time, read_case, run_case, run_folder
from kbs.attestation.model import Endorsements, VerifiedClaims, Verifier, VerifierOptions
from kbs.attestation.verifiers import sample, snp
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid, KbsError, MalformedMessage, PolicyBroken, SignatureInvalid
from kbs.policy.engine import PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee

BUILDERS = {Tee.SAMPLE: sample.build, Tee.SAMPLE_DEVICE: sample.build_device, Tee.SNP: snp.build}
COUNTS = {"sample": 7, "snp": 26}

Document = dict[str, Any]


def _factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    if tee not in BUILDERS:
        raise ConfigInvalid(f"nobody provides {tee}")
    return BUILDERS[tee]


@pytest.fixture(scope="module")
def engine() -> WasmEngine:
    return WasmEngine(system_clock)


@pytest.fixture(scope="module")
def policies() -> DefaultPolicies:
    return DefaultPolicies(Shipped.load())


@pytest.fixture
def document(vectors: Path) -> Document:
    found: Document = json.loads((vectors / "sample" / "synthetic" / "sample_ok.json").read_text())
    return found


@pytest.fixture
def judge(engine: WasmEngine, policies: DefaultPolicies) -> Callable[..., Judged]:
    def run(document: Document, verifier: Any = None) -> Judged:
        factory = _factory if verifier is None else lambda _: lambda _: verifier
        return run_case(read_case(json.dumps(document).encode()), factory, engine, policies)

    return run


def _expecting(document: Document, **members: Any) -> Document:
    return {**document, "expect": {**document["expect"], **members}}


@pytest.mark.parametrize("folder", COUNTS)
def test_published_cases(folder: str, vectors: Path, engine: WasmEngine, policies: DefaultPolicies) -> None:
    judged: list[Judged] = []
    counts = run_folder(vectors / folder / "synthetic", _factory, engine, policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (COUNTS[folder], 0)


def test_the_judge_notices_a_wrong_outcome(document: Document, judge: Callable[..., Judged]) -> None:
    assert judge(document).wrong == ()
    assert judge(_expecting(document, authentic=False, affirmable=False)).wrong == ("expected to be refused",)
    assert "expected neither" in judge(_expecting(document, affirmable=False)).wrong[0]
    assert judge(_expecting(document, affirmable=None)).wrong == ()
    refused = {**document, "report_data": "00"}
    assert judge(refused).wrong == ("expected to be accepted",)
    assert judge(refused).outcome.startswith("refused, binding_mismatch")
    debug = {**document, "evidence": {**document["evidence"], "debug": True}}
    assert "sample.debug" in judge(debug).wrong[0]
    assert judge(_expecting(debug, affirmable=False)).wrong == ()


@pytest.mark.parametrize(
    ("expectation", "wrong"),
    [
        ({"claim_sets": 1}, ""),
        ({"claim_sets": 2}, "1 claim sets, expected 2"),
        ({"claims": {"debug": False}}, ""),
        ({"claims": {"debug": True}}, "debug is False, expected True"),
        ({"claims": {"debug": 0}}, "debug is False, expected 0"),
        ({"claims": {"platform_version": {"major": 1, "minor": 4}}}, ""),
        ({"claims": {"absent": None}}, "absent is 'absent', expected None"),
        ({"tcb_status": "UpToDate"}, "tcb_status is 'absent', expected 'UpToDate'"),
        ({"tcb_status": None}, "tcb_status is 'absent', expected None"),
        ({"advisories": []}, "advisory_ids is 'absent', expected []"),
        ({"rim_mismatch": [3]}, "rim_mismatch is 'absent', expected [3]"),
        ({"crypto": "ok", "note": "x", "checked": {}, "reason": "y"}, ""),
    ],
)
def test_expectations_about_claims(
    document: Document, judge: Callable[..., Judged], expectation: Document, wrong: str
) -> None:
    assert "; ".join(judge(_expecting(document, **expectation)).wrong) == wrong


class _Fake:
    """A verifier that answers or fails at will."""

    def __init__(self, *claims: Document, error: Exception | None = None, device_class: str = "cpu") -> None:
        self.claims, self.error, self.device_class = claims, error, device_class

    def needs(self, evidence: Any) -> Any:
        return ()

    def verify(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        return [VerifiedClaims(Tee.SAMPLE, self.device_class, claims) for claims in self.claims]

    def endorsements_from(self, evidence: Any, given: Any) -> Endorsements:
        if given.get("raise"):
            raise SignatureInvalid("given")
        return Endorsements()


def test_ordered_expectations(document: Document, judge: Callable[..., Judged]) -> None:
    verifier = _Fake({"tcb_status": "OutOfDate", "advisory_ids": ["B", "A"], "rim_mismatch": [3]})
    base = _expecting(document, affirmable=None, tcb_status="OutOfDate", rim_mismatch=[3])
    assert judge(_expecting(base, advisories=["B", "A"]), verifier).wrong == ()
    assert judge(_expecting(base, advisories=["A", "B"]), verifier).wrong != ()


def test_every_device_counts(document: Document, judge: Callable[..., Judged]) -> None:
    good = {
        "svn": "1", "launch_digest": "a", "platform_version": {"major": 1, "minor": 4},
        "debug": False, "binding": "checked", "revocation": "checked",
    }  # fmt: skip
    wanted = _expecting(document, claim_sets=2)
    assert judge(wanted, _Fake(good, {**good, "svn": "2"})).wrong == ()
    (wrong,) = judge(wanted, _Fake(good, {**good, "debug": True})).wrong
    assert "cpu1 is warning" in wrong
    assert judge(_expecting(wanted, affirmable=False), _Fake(good, {**good, "debug": True})).wrong == ()


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError("x"), RecursionError("deep"), MalformedMessage("m")])
@pytest.mark.parametrize("authentic", [True, False])
def test_a_crash_is_wrong_whatever_was_expected(
    document: Document, judge: Callable[..., Judged], error: Exception, authentic: bool
) -> None:
    (wrong,) = judge(_expecting(document, authentic=authentic, affirmable=False), _Fake(error=error)).wrong
    assert wrong.startswith(type(error).__name__)


def test_a_refusal_of_endorsements_counts_as_refused(document: Document, judge: Callable[..., Judged]) -> None:
    case = _expecting({**document, "endorsements": {"raise": True}}, authentic=False, affirmable=False)
    assert judge(case, _Fake({})).wrong == ()


def test_a_class_without_default_policy_is_wrong_only_when_policy_matters(
    document: Document, judge: Callable[..., Judged]
) -> None:
    device = _Fake({"x": 1}, device_class="dcu")
    assert judge(_expecting(document, affirmable=None), device).wrong == ()
    (wrong,) = judge(_expecting(document, affirmable=True), device).wrong
    assert "dcu" in wrong


def test_a_tee_without_a_verifier_is_wrong(document: Document, judge: Callable[..., Judged]) -> None:
    assert "no verifier" in judge({**document, "tee": "hygondcu"}).wrong[0]
    assert "no verifier" in judge({**document, "options": {"unknown": 1}}).wrong[0]


def test_built_in_roots_are_not_used(judge: Callable[..., Judged], vectors: Path) -> None:
    """Real evidence under no anchors is refused: an empty object of anchors is not an absent one."""
    evidence = json.loads((vectors / "snp" / "milan_v3.evidence.json").read_text())
    case = json.loads((vectors / "snp" / "synthetic" / "ok_milan_v3.json").read_text())
    real = {**case, "evidence": evidence, "report_data": "00" * 64, "init_data": None, "anchors": {}}
    assert judge(_expecting(real, affirmable=None)).wrong != ()


def test_a_folder_reports_each_file(
    document: Document, tmp_path: Path, engine: WasmEngine, policies: DefaultPolicies
) -> None:
    (tmp_path / "b.json").write_text(json.dumps({**document, "case": "b"}))
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "c.json").write_text(json.dumps({**document, "case": "other"}))
    (tmp_path / "README.md").write_text("no case")
    judged: list[Judged] = []
    assert run_folder(tmp_path, _factory, engine, policies, judged.append) == (3, 2)
    assert [(each.name, bool(each.wrong)) for each in judged] == [("a", True), ("b", False), ("c", True)]
    assert "not a case file" in judged[0].wrong[0]
    assert "'other'" in judged[2].wrong[0]


@pytest.mark.parametrize(
    "change",
    [
        {"tee": "sev"},
        {"tee": 1},
        {"now": "2026-06-15T12:00:00"},
        {"now": "today"},
        {"report_data": "xyz"},
        {"report_data": 5},
        {"evidence_raw": "AA=="},
        {"evidence": None, "evidence_raw": "*"},
        {"reference_values": []},
        {"init_data": 5},
        {"options": []},
        {"anchors": 5},
        {"endorsements": "x"},
        {"expect": {}},
        {"expect": {"authentic": 1, "affirmable": None}},
        {"expect": {"authentic": True, "affirmable": "yes"}},
        {"expect": {"authentic": True, "affirmable": None, "claims": []}},
    ],
)
def test_what_is_no_case(document: Document, change: Document) -> None:
    with pytest.raises(MalformedMessage):
        read_case(json.dumps({**document, **change}).encode())


def test_every_member_is_needed(document: Document) -> None:
    for name in set(document) - {"description"}:
        with pytest.raises(MalformedMessage, match=name):
            read_case(json.dumps({other: value for other, value in document.items() if other != name}).encode())


def test_the_answer_of_a_remote_service_is_given_with_the_endorsements(document: Document) -> None:
    case = read_case(json.dumps({**document, "evidence": None, "nras_response": [1]}).encode())
    assert case.evidence is None
    assert case.endorsements == {**document["endorsements"], "nras_response": [1]}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_case_or_refused(raw: bytes) -> None:
    with pytest.raises(KbsError):
        read_case(raw)


def test_times_need_an_offset() -> None:
    assert parse_time("2026-06-15T12:00:00Z") == parse_time("2026-06-15T14:00:00+02:00")
    with pytest.raises(ValueError, match="offset"):
        parse_time("2026-06-15T12:00:00")


def test_default_policies(policies: DefaultPolicies) -> None:
    first = policies.active(PolicyKind.EVIDENCE, "default_cpu")
    assert first is policies.active(PolicyKind.EVIDENCE, "default_cpu")
    assert first.origin.startswith("shipped:evidence/cpu")
    for name in ("default_fpga", "upstream/cpu/../cpu", "nothing"):
        with pytest.raises(PolicyBroken):
            policies.active(PolicyKind.EVIDENCE, name)
