"""The Verifier role on one screen: Evidence and Binding → Attestation Result.

Nothing here knows a TEE, a vendor or a token. Whatever goes wrong refuses: evidence at fault with `EvidenceRejected`, a
dependency with a `DependencyFault`, and every bug in a verifier with a `ServerFault`.

Source: attestation-service 1.3, 1.7, 2.3; RFC 9334 section 3.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NoReturn, Protocol, TypeVar

import msgspec

from kbs import strict_json
from kbs.attestation.appraisal import status, trust_vector
from kbs.attestation.init_data import InitData
from kbs.attestation.model import (
    MAX_KEPT,
    Appraisal,
    AttestationResult,
    Binding,
    ChallengingVerifier,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Json,
    Tier,
    VerifiedClaims,
    Verifier,
    VerifierChallenge,
)
from kbs.attestation.registered import MEASURED_IN_PCR_8, SOURCE_MEMBER, KnownInitData, RegisteredInitData
from kbs.errors import (
    EndorsementsUnavailable,
    EvidenceMalformed,
    EvidenceRejected,
    KbsError,
    PeerFault,
    PolicyBroken,
    ReferenceValuesUnavailable,
    ServerFault,
    TeeNotEnabled,
)
from kbs.lockstep import Steps, alone
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.protocol.tee import Tee
from rvps.errors import ProviderUnavailable
from rvps.model import Snapshot

POLICY_ID: Final = "default"
"""The policy id that tokens name. The policy evaluated is `<id>_<device class>` (attestation-service 2.1)."""

_NOTHING: Final = Endorsements()
_TO_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)
_MANY_DIGITS: Final = b"0" * 19  # in a row; no integer that is wider than 64 bits has fewer
_T = TypeVar("_T")


class VerificationRequest(msgspec.Struct, frozen=True):
    """One piece of evidence with what it must be bound to.

    runtime_data: the object `binding.report_data` is the digest of; policies and tokens see it.
    init_data: the document `binding.init_data` is the digest of; None when there was none or only its digest is known.
    protocol_version: that of the handshake, for policies; None outside of one.
    """

    evidence: Evidence
    binding: Binding
    runtime_data: Mapping[str, Json] | None = None
    init_data: InitData | None = None
    protocol_version: str | None = None

    def __post_init__(self) -> None:
        """Claims of one document beside the digest of another would let a guest lie to policies."""
        if self.init_data is not None and not (
            self.binding.init_data is not None and hmac.compare_digest(self.init_data.digest, self.binding.init_data)
        ):
            raise ServerFault("init data and the digest to be bound do not belong together")


class Verified(msgspec.Struct, frozen=True):
    """One claim set and the request it answers; every device of a request has one of its own.

    registered: the document behind the measured value, where the guest sent none.
    """

    request: VerificationRequest
    claims: VerifiedClaims
    registered: RegisteredInitData | None = None


class PolicyInput(msgspec.Struct, frozen=True):
    """What one evidence policy was given: its id, and the document as our encoder made it."""

    policy_id: str
    claims: bytes

    def __repr__(self) -> str:
        """Without the document."""
        return f"PolicyInput(policy_id={self.policy_id!r})"


class Attested(msgspec.Struct, frozen=True):
    """A result, and for each submodule that is not affirming what its policy compared.

    inputs: of each appraisal, in the same order. shadow: submodule → `{"policy", "status", "vector" or "error",
    "differs"}`, where a candidate is staged for its policy.
    """

    result: AttestationResult
    findings: Mapping[str, Sequence[Finding]]
    inputs: Sequence[PolicyInput] = ()
    shadow: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)


class EndorsementSource(Protocol):
    """Where collateral comes from. Nothing it returns is trusted; verifiers check every item."""

    def cached(self, needs: Sequence[EndorsementNeed]) -> Endorsements | None:
        """All of `needs` as far as they are at hand without waiting; None if something would have to be fetched."""

    def fetch(self, needs: Sequence[EndorsementNeed]) -> Endorsements:
        """The same, waiting for vendors where needed. What is not required and not to be had is left out.

        Raises:
            EndorsementsUnavailable: something required is not to be had now.
        """


class ActivePolicies(Protocol):
    """The policies in force; `kbs.policy.store.PolicyStore` is one."""

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        """The current text of one policy.

        Raises:
            KbsError: there is none under this id, or it cannot be read.
        """


class StagedPolicies(Protocol):
    """Policies that are evaluated for the record only; `kbs.policy.candidates.Candidates` has them."""

    def policy(self, kind: PolicyKind, policy_id: str) -> Policy | None:
        """The candidate for one id, if there is one."""


class ReferenceValues(Protocol):
    """The part of `rvps.client.ReferenceValueProvider` that appraisal needs."""

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`."""


class AttestationService:
    """Appraises evidence. Calls are safe from several threads if the ports are.

    Args:
        verifiers: the enabled TEEs.
        endorsements, engine, policies, references: the ports.
        verbose_token: leave `additional-evidence` in what policies and tokens see.
        staged: candidates to evaluate beside the active policies.
        known: documents of guests that send none.
    """

    def __init__(
        self,
        verifiers: Mapping[Tee, Verifier],
        endorsements: EndorsementSource,
        engine: PolicyEngine,
        policies: ActivePolicies,
        references: ReferenceValues,
        verbose_token: bool = True,
        staged: StagedPolicies | None = None,
        known: KnownInitData | None = None,
    ) -> None:
        self._verifiers = verifiers
        self._endorsements = endorsements
        self._engine = engine
        self._policies = policies
        self._references = references
        self._verbose_token = verbose_token
        self._staged = staged
        self._known = known
        self._challenging: Mapping[Tee, ChallengingVerifier] = {
            tee: verifier for tee, verifier in verifiers.items() if isinstance(verifier, ChallengingVerifier)
        }
        self.challenging = frozenset(self._challenging)
        """The TEEs that are asked by `challenge`, and not by a random nonce."""

    def challenge(self, tee: Tee, random: Callable[[int], bytes], at: datetime) -> VerifierChallenge:
        """What to ask a guest of one of the `challenging` TEEs. Takes milliseconds.

        Raises:
            EndorsementsUnavailable: its verifier cannot ask now.
            ServerFault: a bug in it.
        """
        try:
            asked = self._challenging[tee].challenge(random, at)
        except EndorsementsUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  the wall, as in `guarded`
            _broken(tee, error)
        if not 0 < len(asked.kept) <= MAX_KEPT:
            raise ServerFault(operator_detail=f"verifier {tee}: wants {len(asked.kept)} octets kept")
        return asked

    def blocks(self, requests: Iterable[VerificationRequest]) -> bool:
        """Whether `attest` may wait on something outside this process: an event loop then calls it in a thread."""
        if self._engine.blocks:
            return True
        for request in requests:
            if self._known is not None and request.init_data is None and request.evidence.tee in MEASURED_IN_PCR_8:
                return True  # the register may be in another machine's database
            try:
                needs = guarded(request.evidence.tee, self._verifier(request.evidence.tee).needs, request.evidence)
            except KbsError:
                continue  # `attest` will refuse with it, without waiting
            if needs and self._endorsements.cached(needs) is None:
                return True
        return False

    def attest(self, requests: Sequence[VerificationRequest], at: datetime) -> Attested:
        """Verify and appraise all evidence of one guest: the primary first, then devices, sorted by TEE name.

        Args:
            requests: the primary evidence and that of devices, each TEE at most once.
            at: the moment to verify at, aware, UTC.

        Raises:
            EvidenceRejected: not authentic, not bound, or a TEE twice.
            TeeNotEnabled: a TEE that the settings do not enable.
            DependencyFault: collateral, reference values or the policy engine are not to be had; nothing was judged.
            ServerFault: a bug in a verifier, a policy that is missing or broken.
        """
        return alone(self.attesting(requests, at))

    def attesting(self, requests: Sequence[VerificationRequest], at: datetime) -> Steps[Attested]:
        """`attest` in steps."""
        return (yield from self._appraising(self.verify(requests, at), self._snapshot(at)))

    def verify(self, requests: Sequence[VerificationRequest], at: datetime) -> Sequence[Verified]:
        """The first half of `attest`: what the verifiers vouch for, before any policy."""
        return [
            Verified(request, claims, self._registered(request, claims))
            for request in _ordered(requests)
            for claims in self._verify(request, at)
        ]

    def _registered(self, request: VerificationRequest, claims: VerifiedClaims) -> RegisteredInitData | None:
        if self._known is None or request.init_data is not None or claims.tee not in MEASURED_IN_PCR_8:
            return None
        value = claims.claims.get("init_data")
        return self._known.of_pcr_8(value) if isinstance(value, str) else None

    def appraise(self, verified: Sequence[Verified], references: Snapshot) -> Attested:
        """The second half of `attest`: what the policies make of it, given these reference values."""
        return alone(self._appraising(verified, references))

    def _appraising(self, verified: Sequence[Verified], references: Snapshot) -> Steps[Attested]:
        counters: dict[str, int] = {}
        appraisals: list[Appraisal] = []
        findings: dict[str, Sequence[Finding]] = {}
        inputs: list[PolicyInput] = []
        shadow: dict[str, Mapping[str, Any]] = {}
        for each in verified:
            device_class = each.claims.device_class
            number = counters.get(device_class, 0)
            counters[device_class] = number + 1
            submod = f"{device_class}{number}"
            document, encoded = _policy_input(each, self._verbose_token)
            policy_id = f"{POLICY_ID}_{device_class}"
            policy = self._policy(policy_id)
            yield
            verdict = self._engine.appraise(policy, encoded, references)
            yield
            vector = trust_vector(verdict.trust_claims)
            tier = _tier(vector, each)
            if tier is not Tier.AFFIRMING:
                findings[submod] = ()
                with suppress(KbsError):  # the verdict stands, whether it can be explained or not
                    findings[submod] = self._engine.explain_appraisal(policy, encoded, references)
            inputs.append(PolicyInput(policy_id, encoded))
            if self._staged is not None:
                self._shadow(shadow, submod, policy_id, each, encoded, references, (vector, verdict.extensions))
            appraisals.append(
                Appraisal(
                    submod=submod,
                    tee=each.claims.tee,
                    status=tier,
                    vector=vector,
                    policy_id=POLICY_ID,
                    policy_digest=policy.digest,
                    policy_name=f"{policy_id} ({policy.origin})",
                    annotated_evidence=document,
                    annotated_json=encoded,
                    extensions=verdict.extensions,
                )
            )
        return Attested(AttestationResult(tuple(appraisals), references.version), findings, inputs, shadow)

    def _shadow(
        self,
        found: dict[str, Mapping[str, Any]],
        submod: str,
        policy_id: str,
        each: Verified,
        encoded: bytes,
        references: Snapshot,
        decided: tuple[Mapping[str, int], Mapping[str, Any]],
    ) -> None:
        """Note what a candidate makes of the same input; whatever goes wrong here is no matter of this decision.

        Of extensions, which may say much about a workload, the record has the names of those that would differ.
        """
        with suppress(Exception):  # wall: a candidate decides nothing, so it cannot refuse anything either
            candidate = None if self._staged is None else self._staged.policy(PolicyKind.EVIDENCE, policy_id)
            if candidate is None:
                return
            said: dict[str, Any] = {"policy": candidate.digest}
            try:
                verdict = self._engine.appraise(candidate, encoded, references)
                would, (vector, extensions) = trust_vector(verdict.trust_claims), decided
                other = _differing(extensions, verdict.extensions)
                said |= {"status": _tier(would, each).value, "vector": dict(would)}
                said |= {"extensions": other} if other else {}
                said["differs"] = would != vector or bool(other)
            except KbsError as error:
                said |= {"error": error.reason, "differs": True}
            found[submod] = said

    def _verify(self, request: VerificationRequest, at: datetime) -> Sequence[VerifiedClaims]:
        tee = request.evidence.tee
        verifier = self._verifier(tee)
        needs = guarded(tee, verifier.needs, request.evidence)
        endorsements = _NOTHING
        if needs:
            at_hand = self._endorsements.cached(needs)
            endorsements = self._endorsements.fetch(needs) if at_hand is None else at_hand
        verified = guarded(tee, verifier.verify, request.evidence, endorsements, request.binding, at)
        if not verified or any(claims.tee is not tee for claims in verified):
            raise ServerFault(operator_detail=f"verifier {tee}: no claims, or claims of another TEE")
        return verified

    def _verifier(self, tee: Tee) -> Verifier:
        found = self._verifiers.get(tee)
        if found is None:
            raise TeeNotEnabled(f"TEE `{tee}` is not enabled")
        return found

    def _policy(self, policy_id: str) -> Policy:
        try:
            return self._policies.active(PolicyKind.EVIDENCE, policy_id)
        except PeerFault as error:  # the guest cannot help it that nobody set this policy
            raise PolicyBroken(operator_detail=f"no evidence policy {policy_id} is active") from error

    def _snapshot(self, at: datetime) -> Snapshot:
        try:
            return self._references.snapshot(at)
        except ProviderUnavailable as error:
            raise ReferenceValuesUnavailable("reference values are not to be had") from error


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the members that are not the same as JSON, where true is not 1."""
    both = [{name: strict_json.encode(value) for name, value in each.items()} for each in (one, other)]
    return sorted(name for name in both[0].keys() | both[1].keys() if both[0].get(name) != both[1].get(name))


def _tier(vector: Mapping[str, int], verified: Verified) -> Tier:
    tier = status(vector)
    if tier is Tier.AFFIRMING and verified.request.binding.report_data is None:
        return Tier.WARNING  # evidence without a challenge may be a replay, whatever the policy looks at
    return tier


def policy_input(verified: Verified, *, verbose_token: bool = True) -> dict[str, Json]:
    """What a policy sees, and what the token holds as annotated evidence (attestation-service 1.7).

    Raises:
        EvidenceMalformed: an integer that does not fit 64 bits, signed.
        ServerFault: claims that are not JSON.
    """
    return _policy_input(verified, verbose_token)[0]


def _policy_input(verified: Verified, verbose_token: bool) -> tuple[dict[str, Json], bytes]:
    """The document, and as it is encoded for the policy and the token."""
    request, claims = verified.request, verified.claims
    own = dict(claims.claims)
    document: dict[str, Json] = {}
    if isinstance(own.get("init_data"), str):
        document["init_data"] = own.pop("init_data")
        known = verified.registered
        sent = known.document if known is not None and request.init_data is None else request.init_data
        document["init_data_claims"] = None if sent is None else sent.claims
        if known is not None:
            document[SOURCE_MEMBER] = known.source()
    if isinstance(own.get("report_data"), str):
        document["report_data"] = own.pop("report_data")
        runtime_data = request.runtime_data
        if runtime_data is not None and not verbose_token:
            runtime_data = {name: value for name, value in runtime_data.items() if name != "additional-evidence"}
        document["runtime_data_claims"] = runtime_data
    if request.protocol_version is not None:
        document["protocol_version"] = request.protocol_version
    document[str(claims.tee)] = own
    encoded = strict_json.encode(document)
    if _MANY_DIGITS in encoded.translate(_TO_ZERO):
        _refuse_wide_integers(document)
    return document, encoded


def _ordered(requests: Sequence[VerificationRequest]) -> Sequence[VerificationRequest]:
    if not requests:
        raise EvidenceMalformed("no evidence")
    if len(requests) == 1:
        return requests
    if len({request.evidence.tee for request in requests}) != len(requests):
        raise EvidenceRejected("evidence of one TEE is there twice")
    return [requests[0], *sorted(requests[1:], key=lambda request: request.evidence.tee.value)]


def _refuse_wide_integers(value: Json) -> None:
    """Relying parties in other languages read 64 bits, signed; a wider number would change its value on the way."""
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise EvidenceMalformed("a claim is an integer of more than 64 bits")
    elif isinstance(value, dict):
        for member in value.values():
            _refuse_wide_integers(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_wide_integers(member)


def guarded(tee: Tee, step: Callable[..., _T], *arguments: object) -> _T:
    """The wall around verifiers: `EvidenceRejected` passes, anything else is our bug and refuses as such."""
    try:
        return step(*arguments)
    except EvidenceRejected:
        raise
    except Exception as error:  # noqa: BLE001  the wall: a bug in a verifier must never accept, nor take the worker down
        _broken(tee, error)


def _broken(tee: Tee, error: Exception) -> NoReturn:
    raise ServerFault(operator_detail=f"verifier {tee}: {type(error).__name__} escaped") from error
