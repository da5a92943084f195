"""in-toto statements: what a verified attestation says, once its signature has been checked.

Predicates read here:

    urn:kbs:reference-values:v1      a signed value set; its subjects are the artifacts
    urn:kbs:reference-approval:v1    consent to a statement; its subject is that statement
    urn:kbs:reference-revocation:v1  the end of a statement; its subject is that statement
    https://slsa.dev/provenance/v1   over a file of values that came with it: see `rvps.intake.slsa`

Source: in-toto attestation framework, Statement v1; rvps 12.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rvps import messages, value_set
from rvps.errors import StatementUnacceptable
from rvps.intake import slsa
from rvps.intake.model import MAX_MESSAGE, Approval, Artifact, Content, Revocation, Verified
from rvps.strict_json import NotStrictJson, decode
from rvps.value_set import DIGEST_LENGTHS, MAX_ARTIFACTS, check_digest, check_flag

STATEMENT: Final = "https://in-toto.io/Statement/v1"
VALUES: Final = "urn:kbs:reference-values:v1"
APPROVAL: Final = "urn:kbs:reference-approval:v1"
REVOCATION: Final = "urn:kbs:reference-revocation:v1"
MAX_SERIAL: Final = 2**63 - 1
MAX_REASON: Final = 500  # characters

_REQUIRED: Final = frozenset({"series", "serial", "values", "expires"})
_MEMBERS: Final = _REQUIRED | {"tee", "together", "knownBad", "notBefore"}


@dataclass(frozen=True, slots=True)
class Attested(Verified):
    """A verified in-toto attestation.

    artifact: the file that came with it, not signed: its digest must be one of the statement's.
    source_digest: the commit that the signing certificate names, or None.
    """

    artifact: bytes | None = field(default=None, repr=False)
    source_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement. subjects: for each its name and the digests of algorithms known here, at least one."""

    subjects: tuple[Artifact, ...]
    predicate_type: str
    predicate: Mapping[str, Any] = field(repr=False)


def read(verified: Verified, at: datetime) -> Content | Approval | Revocation:
    """What a verified attestation says.

    Raises:
        StatementUnacceptable: another statement version or predicate, members that are missing, unknown or malformed,
            an expiry that has passed, or a file of values that does not fit its provenance.
    """
    statement = read_statement(verified.content)
    artifact = verified.artifact if isinstance(verified, Attested) else None
    if statement.predicate_type == slsa.PREDICATE:
        if artifact is None:
            raise StatementUnacceptable("SLSA provenance states no values: send it together with the file of values")
        source = verified.source_digest if isinstance(verified, Attested) else None
        return slsa.read(slsa.Evidence(statement.subjects, statement.predicate, artifact, source), verified)
    if artifact is not None:
        raise StatementUnacceptable(f"an artifact comes with {slsa.PREDICATE} only")
    if statement.predicate_type == VALUES:
        return _values(statement, at)
    if statement.predicate_type == APPROVAL:
        return _approval(statement)
    if statement.predicate_type == REVOCATION:
        return _revocation(statement)
    known = ", ".join((VALUES, APPROVAL, REVOCATION, slsa.PREDICATE))
    raise StatementUnacceptable(f"in-toto statement: a predicate type that is not read here; types: {known}")


def read_statement(content: bytes) -> Statement:
    """The statement without its predicate's meaning. Members that in-toto does not know are ignored, as it asks.

    Raises:
        StatementUnacceptable: not a Statement v1 with at least one subject that has a digest known here.
    """
    try:
        document = decode(content, max_bytes=MAX_MESSAGE)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"in-toto statement: {err}") from err
    if not isinstance(document, dict):
        raise StatementUnacceptable("in-toto statement: not a JSON object")
    version = document.get("_type")
    if version != STATEMENT:
        older = isinstance(version, str) and version.startswith("https://in-toto.io/Statement/v0.")
        said = "version 0.x is not read, sign a Statement v1" if older else f"`_type` is not {STATEMENT}"
        raise StatementUnacceptable(f"in-toto statement: {said}")
    kind, predicate = document.get("predicateType"), document.get("predicate")
    if not isinstance(kind, str) or not isinstance(predicate, dict):
        raise StatementUnacceptable("in-toto statement: `predicateType` is a string and `predicate` an object")
    return Statement(_subjects(document.get("subject")), kind, predicate)


def _subjects(subjects: object) -> tuple[Artifact, ...]:
    if not isinstance(subjects, list) or not 0 < len(subjects) <= MAX_ARTIFACTS:
        raise StatementUnacceptable(f"in-toto statement: `subject` is not an array of 1 to {MAX_ARTIFACTS}")
    return tuple(_subject(item) for item in subjects)


def _subject(item: object) -> Artifact:
    if not isinstance(item, dict) or not isinstance(item.get("digest"), dict):
        raise StatementUnacceptable("in-toto statement: a subject has no digests")
    known = {algorithm: digits for algorithm, digits in item["digest"].items() if algorithm in DIGEST_LENGTHS}
    if not known:
        raise StatementUnacceptable(f"in-toto statement: a subject has no digest of {', '.join(DIGEST_LENGTHS)}")
    for algorithm, digits in known.items():
        check_digest(algorithm, digits)
    name = item.get("name", "")
    if name != "":
        value_set.check_artifact_name(name)
    return Artifact(name, known)


def _values(statement: Statement, at: datetime) -> Content:
    predicate = statement.predicate
    if not predicate.keys() >= _REQUIRED:
        raise StatementUnacceptable(f"reference values: `{min(_REQUIRED - predicate.keys())}` is missing")
    if not predicate.keys() <= _MEMBERS:
        raise StatementUnacceptable(f"reference values: an unknown member; there are {', '.join(sorted(_MEMBERS))}")
    values, known_bad, tee = predicate["values"], predicate.get("knownBad", {}), predicate.get("tee")
    value_set.check_series(predicate["series"])
    value_set.check_values(values, known_bad)
    if tee is not None:
        value_set.check_tee(tee)
    valid_until = _time(predicate["expires"], "expires")
    valid_from = _time(predicate["notBefore"], "notBefore") if "notBefore" in predicate else None
    if valid_from is not None and valid_from >= valid_until:
        raise StatementUnacceptable("reference values: `notBefore` is not before `expires`")
    if valid_until <= at:
        raise StatementUnacceptable("reference values: `expires` has passed")
    return Content(
        series=predicate["series"],
        serial=check_serial(predicate["serial"]),
        tee=tee,
        artifacts=statement.subjects,
        values=values,
        known_bad={name: tuple(bad) for name, bad in known_bad.items()},
        together=check_flag(predicate.get("together", False), "together"),
        valid_from=valid_from,
        valid_until=valid_until,
    )


def _approval(statement: Statement) -> Approval:
    predicate = statement.predicate
    _only(predicate, {"statement"}, {"serial"}, "approval")
    serial = check_serial(predicate["serial"]) if "serial" in predicate else None
    return Approval(_about(statement, "approval"), serial)


def _revocation(statement: Statement) -> Revocation:
    predicate = statement.predicate
    _only(predicate, {"statement", "reason"}, set(), "revocation")
    return Revocation(_about(statement, "revocation"), check_reason(predicate["reason"]))


def _about(statement: Statement, what: str) -> str:
    digest = statement.predicate["statement"]
    check_digest("sha256", digest)
    if [dict(subject.digest) for subject in statement.subjects] != [{"sha256": digest}]:
        raise StatementUnacceptable(f"{what}: its one subject is not the statement that it names")
    return str(digest)


def _only(predicate: Mapping[str, Any], required: set[str], optional: set[str], what: str) -> None:
    if not required <= predicate.keys() <= required | optional:
        members: Sequence[str] = sorted(required | optional)
        raise StatementUnacceptable(f"{what}: a member is missing or unknown; there are {', '.join(members)}")


def check_reason(reason: object) -> str:
    """Why a statement is revoked.

    Raises:
        StatementUnacceptable: not one printable line of 1 to `MAX_REASON` characters.
    """
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= len(reason) <= MAX_REASON:
        raise StatementUnacceptable(f"revocation: `reason` is not 1 to {MAX_REASON} characters")
    if not reason.isprintable():
        raise StatementUnacceptable("revocation: `reason` is not one printable line")
    return reason


def check_serial(serial: object) -> int:
    """A serial number.

    Raises:
        StatementUnacceptable: not a whole number from 1 to `MAX_SERIAL`.
    """
    if not isinstance(serial, int) or isinstance(serial, bool) or not 1 <= serial <= MAX_SERIAL:
        raise StatementUnacceptable("`serial` is not a whole number from 1 to 2^63 - 1")
    return serial


def _time(text: object, member: str) -> datetime:
    if not isinstance(text, str):
        raise StatementUnacceptable(f"reference values: `{member}` is not a string")
    return messages.read_time(text, f"reference values: `{member}`")
