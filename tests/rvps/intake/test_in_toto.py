"""in-toto statements of our own predicates: every member as it must be, or nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from rvps import signing
from rvps.errors import StatementUnacceptable
from rvps.intake import in_toto
from rvps.intake.in_toto import Attested
from rvps.intake.model import Approval, Content, Revocation
from rvps.publishers.model import Publisher, Trust
from rvps.value_set import Artifact, ValueSet

AT = datetime(2026, 6, 1, tzinfo=UTC)
EXPIRES = datetime(2026, 9, 1, tzinfo=UTC)
PUBLISHER = Publisher("acme", frozenset({"dsse"}), ("acme/",), Trust())
SET = ValueSet(
    "guest",
    {"acme/a": ["ab"], "acme/b": 3},
    (Artifact("OVMF.fd", {"sha256": "ab" * 32, "sha384": "cd" * 48}),),
    "snp",
    True,
    {"acme/a": ["00"]},
)
STATEMENT = json.loads(signing.values_statement(SET, serial=7, expires=EXPIRES, not_before=AT))
DIGEST = "ef" * 32


def attested(statement: Any, artifact: bytes | None = None) -> Attested:
    content = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
    return Attested(PUBLISHER, "sha256:x", "dsse", content, "", None, artifact=artifact)


def read(statement: Any, artifact: bytes | None = None, at: datetime = AT) -> Content | Approval | Revocation:
    return in_toto.read(attested(statement, artifact), at)


def changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**document, **changes}.items() if value is not ...}


def predicate(**changes: Any) -> dict[str, Any]:
    return changed(STATEMENT, predicate=changed(STATEMENT["predicate"], **changes))


def test_what_was_signed_is_read() -> None:
    content = read(STATEMENT)
    assert isinstance(content, Content)
    assert (content.series, content.serial, content.tee, content.together) == ("guest", 7, "snp", True)
    assert content.values == {"acme/a": ["ab"], "acme/b": 3}
    assert content.known_bad == {"acme/a": ("00",)}
    assert (content.valid_from, content.valid_until) == (AT, EXPIRES)
    assert [(item.name, dict(item.digest)) for item in content.artifacts] == [
        ("OVMF.fd", {"sha256": "ab" * 32, "sha384": "cd" * 48})
    ]


def test_a_set_without_artifacts_is_its_own_subject() -> None:
    statement = json.loads(signing.values_statement(ValueSet("g", {"a": 1}), serial=1, expires=EXPIRES))
    assert statement["subject"][0]["name"] == "g.json"
    content = read(statement)
    assert isinstance(content, Content)
    assert (content.tee, content.valid_from, content.together) == (None, None, False)


def test_digests_of_other_algorithms_are_not_looked_at() -> None:
    subject = {"name": "a", "digest": {"sha256": "ab" * 32, "gitCommit": "x", "md5": 5}, "uri": "https://a"}
    content = read(changed(STATEMENT, subject=[subject], extra=1))
    assert isinstance(content, Content)
    assert dict(content.artifacts[0].digest) == {"sha256": "ab" * 32}


SUBJECT = STATEMENT["subject"][0]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (changed(STATEMENT, _type="https://in-toto.io/Statement/v0.1"), "0.x is not read"),
        (changed(STATEMENT, _type="https://in-toto.io/Statement/v2"), "_type"),
        (changed(STATEMENT, _type=...), "_type"),
        (changed(STATEMENT, predicateType="https://slsa.dev/provenance/v0.2"), "predicate type"),
        (changed(STATEMENT, predicateType=5), "predicateType"),
        (changed(STATEMENT, predicate=[]), "predicate"),
        (changed(STATEMENT, predicate=...), "predicate"),
        (changed(STATEMENT, predicateType="https://slsa.dev/provenance/v1"), "together with the file"),
        (changed(STATEMENT, subject=[]), "subject"),
        (changed(STATEMENT, subject=...), "subject"),
        (changed(STATEMENT, subject={}), "subject"),
        (changed(STATEMENT, subject=["x"]), "no digests"),
        (changed(STATEMENT, subject=[SUBJECT] * 1025), "subject"),
        (changed(STATEMENT, subject=[{"name": "a"}]), "no digests"),
        (changed(STATEMENT, subject=[{"name": "a", "digest": {"md5": "ab"}}]), "no digest of"),
        (changed(STATEMENT, subject=[{"name": "a", "digest": {"sha256": "AB" * 32}}]), "lower-case"),
        (changed(STATEMENT, subject=[SUBJECT, {"name": 5, "digest": {"sha256": "ab" * 32}}]), "name"),
        (predicate(series=...), "`series` is missing"),
        (predicate(serial=...), "`serial` is missing"),
        (predicate(values=...), "`values` is missing"),
        (predicate(expires=...), "`expires` is missing"),
        (predicate(more=1), "unknown member"),
        (predicate(known_bad={}), "unknown member"),
        (predicate(series="a b"), "series"),
        (predicate(serial=0), "serial"),
        (predicate(serial=2**63), "serial"),
        (predicate(serial="1"), "serial"),
        (predicate(serial=True), "serial"),
        (predicate(serial=1.0), "serial"),
        (predicate(tee="SNP"), "tee"),
        (predicate(tee=["snp"]), "tee"),
        (predicate(together="yes"), "together"),
        (predicate(values={}, knownBad={}), "neither"),
        (predicate(values={"a": None}), "null"),
        (predicate(values={"a/../b": 1}), "segment"),
        (predicate(values=["a"]), "objects"),
        (predicate(knownBad={"acme/a": ["ab"]}), "both"),
        (predicate(knownBad={"acme/a": "ab"}), "lists"),
        (predicate(expires="2026-06-01T00:00:00Z", notBefore=...), "has passed"),
        (predicate(expires="2026-09-01T00:00:00+00:00"), "form"),
        (predicate(expires="2026-02-30T00:00:00Z"), "no such date"),
        (predicate(expires=1), "string"),
        (predicate(notBefore=None), "string"),
        (predicate(notBefore="2026-09-01T00:00:00Z"), "not before"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused(statement: Any, said: str) -> None:
    with pytest.raises(StatementUnacceptable, match=said):
        read(statement)


def test_a_statement_lives_until_its_last_second() -> None:
    assert isinstance(read(STATEMENT, at=EXPIRES.replace(month=8, day=31, hour=23, minute=59, second=59)), Content)
    with pytest.raises(StatementUnacceptable, match="has passed"):
        read(STATEMENT, at=EXPIRES)


def test_values_of_our_own_come_without_a_file() -> None:
    with pytest.raises(StatementUnacceptable, match="artifact"):
        read(STATEMENT, b"{}")


def test_approvals_and_revocations() -> None:
    assert read(signing.approval_statement(DIGEST)) == Approval(DIGEST, None)
    assert read(signing.approval_statement(DIGEST, 7)) == Approval(DIGEST, 7)
    assert read(signing.revocation_statement(DIGEST, "leaked")) == Revocation(DIGEST, "leaked")


APPROVAL = json.loads(signing.approval_statement(DIGEST, 7))
REVOCATION = json.loads(signing.revocation_statement(DIGEST, "leaked"))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (changed(APPROVAL, predicate={}), "missing"),
        (changed(APPROVAL, predicate={"statement": DIGEST, "x": 1}), "unknown"),
        (changed(APPROVAL, predicate={"statement": DIGEST.upper()}), "lower-case"),
        (changed(APPROVAL, predicate={"statement": 5}), "hex"),
        (changed(APPROVAL, predicate={"statement": "ab" * 32}), "not the statement"),
        (changed(APPROVAL, subject=APPROVAL["subject"] * 2), "not the statement"),
        (changed(APPROVAL, predicate={"statement": DIGEST, "serial": 0}), "serial"),
        (changed(APPROVAL, predicate={"statement": DIGEST, "serial": None}), "serial"),
        (changed(REVOCATION, predicate={"statement": DIGEST}), "missing"),
        (changed(REVOCATION, predicate={"statement": DIGEST, "reason": ""}), "reason"),
        (changed(REVOCATION, predicate={"statement": DIGEST, "reason": "  "}), "reason"),
        (changed(REVOCATION, predicate={"statement": DIGEST, "reason": "a\nb"}), "printable"),
        (changed(REVOCATION, predicate={"statement": DIGEST, "reason": "a" * 501}), "reason"),
        (changed(REVOCATION, predicate={"statement": DIGEST, "reason": 1}), "reason"),
    ],
    ids=[f"{number}" for number in range(14)],
)
def test_other_approvals_and_revocations_are_refused(statement: Any, said: str) -> None:
    with pytest.raises(StatementUnacceptable, match=said):
        read(statement)
