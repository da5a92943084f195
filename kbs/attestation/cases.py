"""Case files: evidence with everything beside it and the outcome it must have, run through the real pipeline.

A file describes one piece of evidence, the collateral and anchors to use instead of fetched and built-in ones, the
moment, and what must come of it. New files need no code here. Nothing in this module opens a network connection.

Source: the case-file format of the verifier vectors (tests/vectors/CASES.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kbs import strict_json
from kbs.attestation.appraisal import tier
from kbs.attestation.model import (
    Appraisal,
    Binding,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Json,
    Tier,
    Verifier,
    VerifierOptions,
)
from kbs.attestation.service import ActivePolicies, AttestationService, Attested, VerificationRequest, Verified
from kbs.errors import ConfigInvalid, EvidenceMalformed, EvidenceRejected, KbsError, MalformedMessage
from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.shipped import Shipped
from kbs.protocol.tee import Tee
from rvps.model import Snapshot

Factories = Callable[[Tee], Callable[[VerifierOptions], Verifier]]
"""Gives the verifier factory of one TEE, or raises `ConfigInvalid` when there is none."""

_MAX_CASE: Final = 8 << 20  # octets; the largest real evidence, many devices with their certificates, has 3 MB


@dataclass(frozen=True, slots=True)
class Case:
    """One file. `evidence` and everything beside it are as hostile as any guest's.

    evidence: bytes where the file holds raw evidence. anchors: None stands for the built-in ones. references: values
        that a recorded decision was made with.
    """

    name: str
    tee: Tee
    evidence: Json | bytes = field(repr=False)
    endorsements: Mapping[str, Json] = field(repr=False)
    anchors: Mapping[str, Json] | None = field(repr=False)
    options: Mapping[str, Json]
    at: datetime
    binding: Binding
    expect: Mapping[str, Json]
    references: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one case: an `outcome` for people, and what of it is `wrong`; nothing wrong is a pass."""

    name: str
    outcome: str
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GivenEndorsements:
    """The `EndorsementSource` that has what it was given, and nothing else is to be had."""

    endorsements: Endorsements

    def cached(self, needs: Sequence[EndorsementNeed]) -> Endorsements:  # noqa: ARG002  the port's signature
        """What was given; a verifier that misses something required says so itself."""
        return self.endorsements

    def fetch(self, needs: Sequence[EndorsementNeed]) -> Endorsements:  # noqa: ARG002  the port's signature
        """The same: there is nowhere to fetch from."""
        return self.endorsements


@dataclass(frozen=True, slots=True)
class GivenReferences:
    """The `ReferenceValues` of one fixed snapshot."""

    values: Snapshot

    def snapshot(self, at: datetime) -> Snapshot:  # noqa: ARG002  the port's signature
        """The one snapshot, at any time."""
        return self.values


class DefaultPolicies:
    """The `ActivePolicies` of an installation where nobody uploaded any: `default_<class>` is the shipped one."""

    def __init__(self, shipped: Shipped) -> None:
        self._shipped = shipped
        self._read: dict[str, Policy] = {}

    def active(self, kind: PolicyKind, policy_id: str) -> Policy:
        """The shipped policy.

        Raises:
            PolicyBroken: none is shipped under this id, or it is damaged.
        """
        name = f"{kind}/{policy_id.removeprefix('default_')}"
        if name not in self._read:
            self._read[name] = self._shipped.policy(name)
        return self._read[name]


def fixed_snapshot(values: Mapping[str, Json], sets: Sequence[Mapping[str, Json]] = ()) -> Snapshot:
    """A snapshot of exactly these values that never expires; its version is their digest.

    sets: compound sets beside them, each name → value.
    """
    encoded = strict_json.encode(dict(values))
    by_name = {
        name: [dict(each) for each in sets if name in each] for name in {name: 0 for each in sets for name in each}
    }
    encoded_sets = strict_json.encode(by_name)
    digest = hashlib.sha256(encoded if not sets else encoded + b"\0" + encoded_sets).hexdigest()
    return Snapshot(digest, values, encoded, None, encoded_sets)


def read_case(raw: bytes) -> Case:
    """Decode a case file.

    Raises:
        MalformedMessage: not a case file; the text says which member is at fault.
    """
    limits = strict_json.Limits(size=_MAX_CASE, tokens=2_000_000)
    document = strict_json.decode(raw, limits=limits)
    if not isinstance(document, dict):
        raise MalformedMessage("a case file is a JSON object")
    try:
        given = {**_member(document, "endorsements", dict)}
        if "nras_response" in document:
            given["nras_response"] = document["nras_response"]
        return Case(
            name=_member(document, "case", str),
            tee=Tee(_member(document, "tee", str)),
            evidence=_evidence(document),
            endorsements=given,
            anchors=_member(document, "anchors", dict | None),
            options=_member(document, "options", dict),
            at=parse_time(_member(document, "now", str)),
            binding=Binding(_octets(document["report_data"]), _octets(document["init_data"])),
            expect=_expectation(_member(document, "expect", dict)),
            references=_member(document, "reference_values", dict) if "reference_values" in document else {},
        )
    except KeyError as error:
        raise MalformedMessage(f"member {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise MalformedMessage(str(error)) from None


def parse_time(text: str) -> datetime:
    """RFC 3339 with an offset, in UTC.

    Raises:
        ValueError: not such a time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, as in 2026-06-15T12:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time outside the years 1 to 9999 in UTC") from None


def given_endorsements(verifier: Verifier, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
    """Collateral of a case: in its TEE's form, or `{"items": {name: base64}}`, which has one form for all TEEs.

    Raises:
        EvidenceRejected: what the verifier cannot read. EvidenceMalformed: an item is not base64.
    """
    if given.keys() != {"items"} or not isinstance(given["items"], dict):
        return verifier.endorsements_from(evidence, given)
    try:
        return Endorsements({name: base64.b64decode(text, validate=True) for name, text in given["items"].items()})
    except (binascii.Error, ValueError, TypeError) as err:
        raise EvidenceMalformed("a given endorsement is not base64") from err


def _member(document: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = document[name]
    if not isinstance(value, kind):
        raise TypeError(f"member {name!r} is not of type {getattr(kind, '__name__', kind)}")
    return value


def _evidence(document: Mapping[str, Any]) -> Json | bytes:
    if "evidence_raw" not in document:
        return document["evidence"]
    if document["evidence"] is not None:
        raise TypeError("member 'evidence_raw' stands beside evidence")
    return base64.b64decode(_member(document, "evidence_raw", str), validate=True)


def _octets(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _expectation(expect: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(expect["authentic"], bool) or not isinstance(expect["affirmable"], bool | None):
        raise TypeError("expect.authentic is a boolean, expect.affirmable a boolean or null")
    if not isinstance(expect.get("claims", {}), dict):
        raise TypeError("expect.claims is an object")
    return expect


def run_folder(
    folder: Path, factories: Factories, engine: PolicyEngine, policies: ActivePolicies, report: Callable[[Judged], None]
) -> tuple[int, int]:
    """Run every `*.json` of a folder in the order of names; how many there were and how many came out wrong.

    What cannot be read, or is no file at all, came out wrong too.
    """
    cases = wrong = 0
    for path in sorted(folder.glob("*.json")):
        try:
            case = read_case(_contents(path))
        except (KbsError, OSError) as error:
            judged = Judged(path.stem, "not run", (f"not a case file: {error}",))
        else:
            judged = run_case(case, factories, engine, policies)
            if case.name != path.stem:
                judged = Judged(path.stem, judged.outcome, (*judged.wrong, f"the file holds case {case.name!r}"))
        cases += 1
        wrong += bool(judged.wrong)
        report(judged)
    return cases, wrong


def _contents(path: Path) -> bytes:
    """At most one octet more than a case may have, for `read_case` to refuse. A pipe would never end."""
    if not path.is_file():
        raise MalformedMessage("not a file")
    with path.open("rb") as file:
        return file.read(_MAX_CASE + 1)


def run_case(case: Case, factories: Factories, engine: PolicyEngine, policies: ActivePolicies) -> Judged:
    """Run one case. Never raises: an exception that is no refusal is what the case is there to find."""
    try:
        verifier = factories(case.tee)(VerifierOptions(case.options, case.anchors))
    except ConfigInvalid as error:
        return Judged(case.name, "not run", (f"no verifier for it: {error}",))
    except Exception as error:  # noqa: BLE001  a wall: the rest of the folder still runs
        return _crashed(case, error)
    request = VerificationRequest(Evidence(case.tee, case.evidence), case.binding)
    try:
        given = GivenEndorsements(given_endorsements(verifier, request.evidence, case.endorsements))
        references = GivenReferences(fixed_snapshot({}))
        service = AttestationService({case.tee: verifier}, given, engine, policies, references)
        verified = service.verify([request], case.at)
        attested = None
        if case.expect["authentic"] and case.expect["affirmable"] is not None:
            attested = _with_own_values(service, verified)
    except EvidenceRejected as error:
        refused = f"refused, {error.reason}: {error}"
        return Judged(case.name, refused, ("expected to be accepted",) if case.expect["authentic"] else ())
    except Exception as error:  # noqa: BLE001  a wall: anything but a refusal is wrong, whatever was expected
        return _crashed(case, error)
    if not case.expect["authentic"]:
        return Judged(case.name, "accepted", ("expected to be refused",))
    wrong = tuple(_wrong_claims(case.expect, verified))
    if attested is None:
        return Judged(case.name, "accepted", wrong)
    outcome = ", ".join(f"{each.submod} {each.status}" for each in attested.result.appraisals)
    return Judged(case.name, f"accepted, {outcome}", (*wrong, *_wrong_appraisal(case.expect["affirmable"], attested)))


def _crashed(case: Case, error: Exception) -> Judged:
    cause = error.__cause__ if isinstance(error, KbsError) and error.__cause__ is not None else error
    detail = getattr(cause, "operator_detail", None) or str(cause)
    return Judged(case.name, "not judged", (f"{type(cause).__name__}: {detail}",))


def _with_own_values(service: AttestationService, verified: Sequence[Verified]) -> Attested:
    """Appraise with reference values that agree with these claims, for everything that the policy looks up.

    What a policy looks up stands in its findings. Whether it wants a list or one value does not; so lists are tried
    first, and where the comparison still fails, the value itself.
    """
    attested = service.appraise(verified, fixed_snapshot({}))
    values: dict[str, Json] = {}
    for each in (finding for findings in attested.findings.values() for finding in findings):
        if each.reference is not None and each.seen is not None:
            listed = values.setdefault(each.reference, [])
            if each.seen not in listed:
                listed.append(each.seen)
    attested = service.appraise(verified, fixed_snapshot(values))
    for each in (finding for findings in attested.findings.values() for finding in findings):
        if each.reference in values and not each.ok:
            values[each.reference] = each.seen
    return service.appraise(verified, fixed_snapshot(values))


def _wrong_claims(expect: Mapping[str, Any], verified: Sequence[Verified]) -> list[str]:
    """Expectations about the claims themselves; each but their number holds for every claim set.

    `advisories` speaks of the claim `advisory_ids`, `tcb_status` and `rim_mismatch` of the claims of the same name.
    """
    claims = [each.claims.claims for each in verified]
    found: list[str] = []
    if len(claims) != expect.get("claim_sets", 1):
        found.append(f"{len(claims)} claim sets, expected {expect.get('claim_sets', 1)}")
    wanted = dict(expect.get("claims", {}))
    wanted |= {"tcb_status": expect["tcb_status"]} if "tcb_status" in expect else {}
    wanted |= {"advisory_ids": expect["advisories"]} if "advisories" in expect else {}
    wanted |= {"rim_mismatch": expect["rim_mismatch"]} if "rim_mismatch" in expect else {}
    for name, value in wanted.items():
        for one in claims:
            if name not in one or type(one[name]) is not type(value) or one[name] != value:
                found.append(f"{name} is {one.get(name, 'absent')!r}, expected {value!r}")
    return found


def _wrong_appraisal(affirmable: bool, attested: Attested) -> list[str]:
    appraisals = attested.result.appraisals
    if affirmable:
        return [
            f"{each.submod} is {each.status} with {dict(each.vector)}, expected affirming: {_unmet(attested, each)}"
            for each in appraisals
            if not (each.status is Tier.AFFIRMING and _is_affirming(each, "hardware") and _is_configured(each))
        ]
    if any(
        each.status is not Tier.AFFIRMING
        and not (_is_affirming(each, "hardware") and _is_affirming(each, "configuration"))
        for each in appraisals
    ):
        return []
    return ["affirming in status, or in hardware and configuration; expected neither"]


def _is_affirming(appraisal: Appraisal, claim: str) -> bool:
    return tier(appraisal.vector.get(claim, 0)) is Tier.AFFIRMING


def _is_configured(appraisal: Appraisal) -> bool:
    return appraisal.vector.get("configuration") == 0 or _is_affirming(appraisal, "configuration")


def _unmet(attested: Attested, appraisal: Appraisal) -> str:
    unmet = [finding.claim for finding in attested.findings.get(appraisal.submod, ()) if not finding.ok]
    return ", ".join(unmet) or "no finding says why"
