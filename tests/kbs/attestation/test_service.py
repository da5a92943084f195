"""The pipeline: worked examples, order and naming, and that every fault refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs import strict_json
from kbs.attestation.init_data import RULES_CLAIM, parse_init_data
from kbs.attestation.model import (
    Binding,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Tier,
    VerifiedClaims,
    VerifierOptions,
)
from kbs.attestation.service import AttestationService, Attested, VerificationRequest, Verified, policy_input
from kbs.attestation.verifiers.sample import build, build_device
from kbs.clock import system_clock
from kbs.errors import (
    BindingMismatch,
    EndorsementsUnavailable,
    EvidenceMalformed,
    EvidenceRejected,
    KbsError,
    MalformedMessage,
    PolicyBroken,
    PolicyEngineUnavailable,
    ReferenceValuesUnavailable,
    ResourceNotFound,
    ServerFault,
    SignatureInvalid,
    StorageUnavailable,
    TeeNotEnabled,
)
from kbs.policy.engine import EvidenceVerdict, Finding, Policy, PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from rvps.errors import ProviderUnavailable
from rvps.model import Snapshot

AT = datetime(2026, 1, 1, tzinfo=UTC)
BOUND = Binding(b"challenge")
GOOD = {"hardware": 2, "configuration": 2, "executables": 3}
NEED = EndorsementNeed("vendor/key", required=True)


class FakeVerifier:
    """Returns the claim sets it was given, or raises."""

    def __init__(self, *found: VerifiedClaims, error: Exception | None = None, needs: Any = ()) -> None:
        self.found, self.error, self.needed = found, error, needs
        self.seen: list[tuple[Endorsements, Binding, datetime]] = []

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        if isinstance(self.needed, Exception):
            raise self.needed
        return self.needed  # type: ignore[no-any-return]

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        self.seen.append((endorsements, binding, at))
        if self.error is not None:
            raise self.error
        return self.found

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Any]) -> Endorsements:
        return Endorsements()


@dataclass
class FakeEndorsements:
    at_hand: Endorsements | None = None
    fetched: Endorsements | KbsError = field(default_factory=Endorsements)
    asked: list[str] = field(default_factory=list)

    def cached(self, needs: Sequence[EndorsementNeed]) -> Endorsements | None:
        self.asked.append("cached")
        return self.at_hand

    def fetch(self, needs: Sequence[EndorsementNeed]) -> Endorsements:
        self.asked.append("fetch")
        if isinstance(self.fetched, KbsError):
            raise self.fetched
        return self.fetched


class FakeEngine:
    name = "fake"

    def __init__(self, claims: Mapping[str, int] = GOOD, error: KbsError | None = None, blocks: bool = False) -> None:
        self.claims, self.error, self.blocks = claims, error, blocks
        self.inputs: list[Any] = []
        self.explained = 0

    def appraise(self, policy: Policy, claims_json: bytes, references: Snapshot) -> EvidenceVerdict:
        self.inputs.append((policy.digest, json.loads(claims_json), references.version))
        if self.error is not None:
            raise self.error
        return EvidenceVerdict(self.claims, {"x": 1})

    def authorize(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> bool:
        raise NotImplementedError

    def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
        self.explained += 1
        return (Finding("hardware", "snp.x", "x", 1, None, False),)

    def explain_authorization(self, policy: Policy, token: bytes, request: Mapping[str, Any]) -> Sequence[Finding]:
        raise NotImplementedError


@dataclass
class FakePolicies:
    error: Exception | None = None

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        if self.error is not None:
            raise self.error
        return Policy(kind, "", f"digest of {policy_id}", None, "test")


@dataclass
class FakeReferences:
    values: Mapping[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    def snapshot(self, at: datetime) -> Snapshot:
        if self.error is not None:
            raise self.error
        return Snapshot("v7", self.values, strict_json.encode(dict(self.values)), None)


def _claims(tee: Tee, device_class: str = "cpu", **claims: Any) -> VerifiedClaims:
    return VerifiedClaims(tee, device_class, claims)


def _request(tee: Tee = Tee.SNP, binding: Binding = BOUND, **more: Any) -> VerificationRequest:
    return VerificationRequest(Evidence(tee, {}), binding, **more)


def _service(verifiers: Mapping[Tee, Any] | None = None, **ports: Any) -> AttestationService:
    return AttestationService(
        {Tee.SNP: FakeVerifier(_claims(Tee.SNP))} if verifiers is None else verifiers,
        ports.get("endorsements", FakeEndorsements()),
        ports.get("engine", FakeEngine()),
        ports.get("policies", FakePolicies()),
        ports.get("references", FakeReferences()),
        ports.get("verbose_token", True),
    )


# --- worked examples --------------------------------------------------------------------------------------------------


@pytest.fixture
def worked(vectors: Path) -> Any:
    return json.loads((vectors / "as" / "appraisal.json").read_text())


def _upstream(references: Mapping[str, Any] | None = None, *, verbose: bool = True) -> AttestationService:
    """The real sample verifiers and engine under policies that decide as the reference does."""
    shipped = Shipped.load()

    class UpstreamPolicies:
        def active(self, kind: PolicyKind, policy_id: str) -> Policy:
            return shipped.policy(f"{kind}/upstream/{policy_id.removeprefix('default_')}")

    enabled = VerifierOptions({"enable_sample": True})
    return _service(
        {Tee.SAMPLE: build(enabled), Tee.SAMPLE_DEVICE: build_device(enabled)},
        engine=WasmEngine(system_clock),
        policies=UpstreamPolicies(),
        references=FakeReferences(references or {}),
        verbose_token=verbose,
    )


def _worked_request(flow: Any) -> VerificationRequest:
    init_data = parse_init_data(flow["5_rcar_attestation"]["body"]["init-data"]["body"])
    assert init_data.digest.hex() == flow["7_expected_init_data_hex"]
    return VerificationRequest(
        Evidence(Tee.SAMPLE, flow["4_guest_evidence"]),
        Binding(bytes.fromhex(flow["7_expected_report_data_hex"]), init_data.digest),
        flow["3_guest_runtime_data"],
        init_data,
    )


def _without_ours(document: Mapping[str, Any], tee: str) -> dict[str, Any]:
    """Our sample verifier says two things more than the reference's: `binding` and `revocation`; init data one."""
    own = {name: value for name, value in document[tee].items() if name not in ("binding", "revocation")}
    claims = document.get("init_data_claims")
    if claims is None:
        return {**document, tee: own}
    theirs = {name: value for name, value in claims.items() if name != RULES_CLAIM}
    return {**document, tee: own, "init_data_claims": theirs}


def test_the_policy_input_of_the_worked_example(worked: Any) -> None:
    flow = worked["sample_flow_affirming"]
    verified = Verified(_worked_request(flow), VerifiedClaims(Tee.SAMPLE, "cpu", flow["8_verifier_claims"]))
    assert _without_ours(policy_input(verified), "sample") == flow["9_policy_input"]


def test_sample_flow_affirming(worked: Any) -> None:
    flow = worked["sample_flow_affirming"]
    found = _upstream(flow["10_reference_values"]).attest([_worked_request(flow)], AT)
    (appraisal,) = found.result.appraisals
    assert appraisal.submod == flow["8_submod"]
    assert _without_ours(appraisal.annotated_evidence, "sample") == flow["9_policy_input"]
    assert appraisal.vector == flow["11_trust_claims"]
    assert appraisal.status == flow["11_status"]
    assert appraisal.extensions == {each["name"]: each["value"] for each in flow["11_extensions"]}
    assert found.findings == {}


def test_sample_flow_without_reference_values(worked: Any) -> None:
    flow = worked["sample_flow_without_reference_values"]
    found = _upstream().attest([_worked_request(worked["sample_flow_affirming"])], AT)
    (appraisal,) = found.result.appraisals
    assert appraisal.vector == flow["trust_claims"]
    assert appraisal.status == flow["status"]
    assert set(found.findings) == {"cpu0"}


@pytest.mark.parametrize("verbose", [True, False])
def test_composite_sample_plus_sampledevice(worked: Any, verbose: bool) -> None:
    flow = worked["composite_sample_plus_sampledevice"]
    primary = flow["attestation_tee_evidence"]["primary_evidence"]
    device = json.loads(flow["attestation_tee_evidence"]["additional_evidence"])["sampledevice"]
    runtime = flow["primary_runtime_data"]
    device_runtime = {name: value for name, value in runtime.items() if name != "additional-evidence"}
    requests = [
        VerificationRequest(
            Evidence(Tee.SAMPLE, primary), Binding(bytes.fromhex(flow["primary_digest_sha384_hex"])), runtime
        ),
        VerificationRequest(
            Evidence(Tee.SAMPLE_DEVICE, device),
            Binding(bytes.fromhex(flow["device_digest_sha384_hex"])),
            device_runtime,
        ),
    ]
    values = worked["sample_flow_affirming"]["10_reference_values"]
    found = _upstream(values, verbose=verbose).attest(requests, AT)
    payload = flow["token_payload" if verbose else "token_payload_verbose_token_false"]
    assert [each.submod for each in found.result.appraisals] == list(payload["submods"])
    for appraisal in found.result.appraisals:
        wanted = payload["submods"][appraisal.submod]
        assert appraisal.status == wanted["ear.status"]
        assert appraisal.vector == wanted["ear.trustworthiness-vector"]
        document = _without_ours(appraisal.annotated_evidence, appraisal.tee)
        assert document == wanted["ear.veraison.annotated-evidence"]


# --- policy input -----------------------------------------------------------------------------------------------------


def test_only_text_is_hoisted() -> None:
    claims = _claims(Tee.SNP, init_data=None, report_data=5, x=1)
    assert policy_input(Verified(_request(), claims)) == {"snp": {"init_data": None, "report_data": 5, "x": 1}}


def test_claims_without_report_data_show_no_runtime_data() -> None:
    request = _request(Tee.NVIDIA, runtime_data={"tee-pubkey": {}})
    assert policy_input(Verified(request, _claims(Tee.NVIDIA, "gpu", x=1))) == {"nvidia": {"x": 1}}


def test_a_digest_alone_gives_no_init_data_claims() -> None:
    request = _request(binding=Binding(b"x", b"digest"))
    found = policy_input(Verified(request, _claims(Tee.SNP, init_data="00")))
    assert found == {"init_data": "00", "init_data_claims": None, "snp": {}}


def test_the_verifiers_claims_are_not_changed() -> None:
    claims = _claims(Tee.SNP, init_data="a", report_data="b")
    runtime = {"additional-evidence": "x"}
    policy_input(Verified(_request(runtime_data=runtime), claims), verbose_token=False)
    assert claims.claims == {"init_data": "a", "report_data": "b"}
    assert runtime == {"additional-evidence": "x"}


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 10**60])
@pytest.mark.parametrize("where", ["claim", "nested", "runtime"])
def test_wide_integers_are_refused(value: int, where: str) -> None:
    claims: Any = {"claim": {"n": value}, "nested": {"n": [{"m": [True, value]}]}, "runtime": {"report_data": "x"}}[
        where
    ]
    runtime = {"nonce": value} if where == "runtime" else {}
    with pytest.raises(EvidenceMalformed, match="64 bits"):
        _service({Tee.SNP: FakeVerifier(_claims(Tee.SNP, **claims))}).attest([_request(runtime_data=runtime)], AT)


def test_integers_of_64_bits_are_kept() -> None:
    engine = FakeEngine()
    verifier = FakeVerifier(_claims(Tee.SNP, high=(1 << 63) - 1, low=-(1 << 63), real=1e300))
    _service({Tee.SNP: verifier}, engine=engine).attest([_request()], AT)
    assert engine.inputs[0][1] == {"snp": {"high": (1 << 63) - 1, "low": -(1 << 63), "real": 1e300}}


def test_init_data_of_another_digest_is_our_bug() -> None:
    init_data = parse_init_data('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n')
    assert _request(binding=Binding(b"x", init_data.digest), init_data=init_data).init_data is init_data
    for digest in (None, b"", bytes(32)):
        with pytest.raises(ServerFault):
            _request(binding=Binding(b"x", digest), init_data=init_data)


# --- order and names --------------------------------------------------------------------------------------------------


def _submods(found: Attested) -> list[tuple[str, str]]:
    return [(each.submod, each.tee.value) for each in found.result.appraisals]


def test_primary_first_then_devices_by_name_counted_per_class() -> None:
    service = _service(
        {
            Tee.SAMPLE_DEVICE: FakeVerifier(_claims(Tee.SAMPLE_DEVICE, "gpu")),
            Tee.TDX: FakeVerifier(_claims(Tee.TDX)),
            Tee.NVIDIA: FakeVerifier(
                _claims(Tee.NVIDIA, "gpu", n=0), _claims(Tee.NVIDIA, "switch"), _claims(Tee.NVIDIA, "gpu", n=1)
            ),
            Tee.CCA: FakeVerifier(_claims(Tee.CCA)),
        }
    )
    found = service.attest([_request(tee) for tee in (Tee.TDX, Tee.SAMPLE_DEVICE, Tee.NVIDIA, Tee.CCA)], AT)
    assert _submods(found) == [
        ("cpu0", "tdx"),
        ("cpu1", "cca"),
        ("gpu0", "nvidia"),
        ("switch0", "nvidia"),
        ("gpu1", "nvidia"),
        ("gpu2", "sampledevice"),
    ]
    assert [each.policy_name.split()[0] for each in found.result.appraisals][2:4] == ["default_gpu", "default_switch"]


def test_what_a_result_says() -> None:
    found = _service().attest([_request()], AT)
    (appraisal,) = found.result.appraisals
    assert found.result.references_version == "v7"
    assert appraisal.policy_id == "default"
    assert appraisal.policy_digest == "digest of default_cpu"
    assert appraisal.policy_name == "default_cpu (test)"
    assert appraisal.extensions == {"x": 1}
    assert list(appraisal.vector) == ["configuration", "executables", "hardware"]


def test_a_tee_twice_is_refused() -> None:
    with pytest.raises(EvidenceRejected, match="twice"):
        _service().attest([_request(), _request()], AT)


def test_no_evidence_is_refused() -> None:
    with pytest.raises(EvidenceRejected):
        _service().attest([], AT)


def test_a_tee_that_is_not_enabled() -> None:
    with pytest.raises(TeeNotEnabled):
        _service().attest([_request(Tee.TDX)], AT)
    with pytest.raises(TeeNotEnabled):
        _service().attest([_request(), _request(Tee.SAMPLE_DEVICE)], AT)


def test_findings_only_where_something_did_not_match() -> None:
    affirming, warning = FakeEngine(), FakeEngine({"hardware": 32})
    assert _service(engine=affirming).attest([_request()], AT).findings == {}
    assert affirming.explained == 0
    found = _service(engine=warning).attest([_request()], AT)
    assert found.result.appraisals[0].status is Tier.WARNING
    assert [each.claim for each in found.findings["cpu0"]] == ["snp.x"]


@pytest.mark.parametrize("error", [PolicyBroken("findings conflict"), PolicyEngineUnavailable("too late")])
def test_a_verdict_stands_that_cannot_be_explained(error: KbsError) -> None:
    class Mute(FakeEngine):
        def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
            raise error

    found = _service(engine=Mute({"hardware": 32})).attest([_request()], AT)
    assert found.result.appraisals[0].status is Tier.WARNING
    assert found.findings == {"cpu0": ()}


def test_unbound_evidence_never_affirms() -> None:
    found = _service().attest([_request(binding=Binding(None))], AT)
    assert found.result.appraisals[0].status is Tier.WARNING
    assert set(found.findings) == {"cpu0"}
    bad = _service(engine=FakeEngine({"hardware": 97})).attest([_request(binding=Binding(None))], AT)
    assert bad.result.appraisals[0].status is Tier.CONTRAINDICATED


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SignatureInvalid("no"), BindingMismatch("no")])
def test_a_refusal_passes_as_it_is(error: EvidenceRejected) -> None:
    with pytest.raises(type(error)):
        _service({Tee.SNP: FakeVerifier(error=error)}).attest([_request()], AT)
    with pytest.raises(type(error)):
        _service({Tee.SNP: FakeVerifier(needs=error)}).attest([_request()], AT)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("x"), RecursionError(), MalformedMessage("x"), EndorsementsUnavailable()]
)
def test_any_other_exception_of_a_verifier_is_our_bug(error: Exception) -> None:
    for verifier in (FakeVerifier(error=error), FakeVerifier(needs=error)):
        with pytest.raises(ServerFault) as caught:
            _service({Tee.SNP: verifier}).attest([_request()], AT)
        assert str(caught.value) == ""
        assert "secret" not in str(caught.value.operator_detail)
        assert type(error).__name__ in str(caught.value.operator_detail)


@pytest.mark.parametrize("found", [(), (_claims(Tee.TDX),), (_claims(Tee.SNP), _claims(Tee.SAMPLE))])
def test_a_verifier_that_vouches_for_nothing_or_another_tee_is_our_bug(found: tuple[VerifiedClaims, ...]) -> None:
    with pytest.raises(ServerFault):
        _service({Tee.SNP: FakeVerifier(*found)}).attest([_request()], AT)


def test_one_bad_device_refuses_the_whole() -> None:
    service = _service(
        {Tee.SNP: FakeVerifier(_claims(Tee.SNP)), Tee.NVIDIA: FakeVerifier(error=SignatureInvalid("device"))}
    )
    with pytest.raises(SignatureInvalid):
        service.attest([_request(), _request(Tee.NVIDIA)], AT)


@pytest.mark.parametrize("error", [ResourceNotFound("default_cpu"), PolicyBroken("x")])
def test_without_a_policy_nothing_is_appraised(error: KbsError) -> None:
    with pytest.raises(PolicyBroken):
        _service(policies=FakePolicies(error)).attest([_request()], AT)


def test_dependencies_that_are_down_pass_as_such() -> None:
    with pytest.raises(StorageUnavailable):
        _service(policies=FakePolicies(StorageUnavailable())).attest([_request()], AT)
    with pytest.raises(ReferenceValuesUnavailable):
        _service(references=FakeReferences(error=ProviderUnavailable())).attest([_request()], AT)
    with pytest.raises(PolicyEngineUnavailable):
        _service(engine=FakeEngine(error=PolicyEngineUnavailable())).attest([_request()], AT)
    verifier = FakeVerifier(_claims(Tee.SNP), needs=(NEED,))
    with pytest.raises(EndorsementsUnavailable):
        _service({Tee.SNP: verifier}, endorsements=FakeEndorsements(None, EndorsementsUnavailable())).attest(
            [_request()], AT
        )
    assert verifier.seen == []


@pytest.mark.parametrize("claims", [{}, {"hardware": 258}, {"hardware": True}, {"kernel": 2}])
def test_a_verdict_that_asserts_nothing_usable_is_refused(claims: Any) -> None:
    with pytest.raises(PolicyBroken):
        _service(engine=FakeEngine(claims)).attest([_request()], AT)


# --- endorsements and blocking ----------------------------------------------------------------------------------------


def test_endorsements_are_fetched_only_when_not_at_hand() -> None:
    verifier = FakeVerifier(_claims(Tee.SNP), needs=(NEED,))
    at_hand, fetched = Endorsements({"vendor/key": b"1"}), Endorsements({"vendor/key": b"2"})
    for source, wanted, asked in (
        (FakeEndorsements(at_hand, fetched), at_hand, ["cached"]),
        (FakeEndorsements(None, fetched), fetched, ["cached", "fetch"]),
    ):
        _service({Tee.SNP: verifier}, endorsements=source).attest([_request()], AT)
        assert verifier.seen.pop() == (wanted, BOUND, AT)
        assert source.asked == asked


def test_without_needs_nobody_is_asked() -> None:
    source = FakeEndorsements()
    service = _service(endorsements=source)
    assert not service.blocks([_request()])
    service.attest([_request()], AT)
    assert source.asked == []


def test_blocks() -> None:
    needy = FakeVerifier(_claims(Tee.NVIDIA), needs=(NEED,))
    verifiers = {Tee.SNP: FakeVerifier(_claims(Tee.SNP)), Tee.NVIDIA: needy}
    requests = [_request(), _request(Tee.NVIDIA)]
    assert _service(verifiers).blocks(requests)
    assert not _service(verifiers, endorsements=FakeEndorsements(Endorsements())).blocks(requests)
    assert not _service(verifiers).blocks(requests[:1])
    assert _service(verifiers, engine=FakeEngine(blocks=True)).blocks(requests[:1])


@pytest.mark.parametrize("error", [SignatureInvalid("x"), ValueError("bug")])
def test_evidence_that_will_be_refused_does_not_block(error: Exception) -> None:
    service = _service({Tee.SNP: FakeVerifier(needs=error)})
    assert not service.blocks([_request(), _request(Tee.TDX)])
