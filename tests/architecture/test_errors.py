"""Every error has a row, and what peers read never says what would have been right."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from kbs import errors
from kbs.errors import DependencyFault, KbsError, PeerFault, ServerFault
from kbs.web.model import Family
from kbs.web.problems import PREFIX, PROBLEMS, problem_for, render
from tests.fakes.broker import BrokerUnderTest, bearer, policy_upload, reference_message, session


def every_subclass_of(kind: type[KbsError]) -> Iterator[type[KbsError]]:
    for each in kind.__subclasses__():
        yield each
        yield from every_subclass_of(each)


ERRORS = sorted(
    # a module's own error stays in it, and which modules are imported here depends on the tests that ran before
    (error for error in every_subclass_of(KbsError) if not error.__name__.startswith("_")),
    key=lambda error: error.__name__,
)


def status_class(error: type[KbsError]) -> range:
    if issubclass(error, DependencyFault):
        return range(503, 504)
    if issubclass(error, ServerFault):
        return range(500, 501)
    assert issubclass(error, PeerFault)
    return range(400, 500)


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_a_row(error: type[KbsError], family: Family) -> None:
    response = render(error("x"), family=family, path="/p", instance="i", decision=None)
    assert response.status in status_class(error)
    document = json.loads(response.body)
    assert list(document)[:2] == ["type", "detail"]
    assert document["type"].startswith(PREFIX)
    assert document["reason"] == error.reason
    assert document["title"] == problem_for(error("x"), family).title


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_of_a_peer_has_a_row_of_its_own_or_of_its_family(error: type[KbsError]) -> None:
    """The root of `PeerFault` is nobody's row: a new error decides its status on purpose."""
    if issubclass(error, PeerFault) and error is not PeerFault:
        assert problem_for(error("x")) is not PROBLEMS[PeerFault]


@pytest.mark.parametrize("error", ERRORS)
def test_reasons_are_words(error: type[KbsError]) -> None:
    assert error.reason.replace("_", "").isalpha()
    assert error.reason == error.reason.lower()


@pytest.mark.parametrize("error", [error for error in ERRORS if not issubclass(error, PeerFault)])
def test_faults_of_ours_say_nothing(error: type[KbsError]) -> None:
    response = render(error("canary"), family=Family.GUEST, path="/p", instance="i", decision=None)
    assert b"canary" not in response.body


@pytest.mark.parametrize("error", [error for error in ERRORS if error is not errors.MethodNotAllowed])
def test_operator_detail_never_leaves(error: type[KbsError]) -> None:
    err = error("x", operator_detail="canary")
    response = render(err, family=Family.GUEST, path="/p", instance="i", decision="d")
    assert b"canary" not in response.body
    assert "canary" not in str(err)


def test_refusals_hold_no_expected_value_and_no_policy_text(broker: BrokerUnderTest) -> None:
    """Keylime CVE-2023-38201: an error text that held the answer."""
    values = {
        "launch_digest": ["expected-digest-5e1f"],
        "svn": ["expected-svn-4711"],
        "major_version": 918273645546372,  # long: ids in answers are random hex digits
        "minimum_minor_version": 7,
    }
    assert broker.admin("POST", "reference-value", reference_message(values)).status == 200
    token = broker.guest().attest()
    handshake, other = broker.handshake(), broker.handshake()
    nonce = json.loads(handshake.body)["runtime-data"]["nonce"]
    report_data = json.loads(handshake.body)["tee-evidence"]["primary_evidence"]["report_data"]
    answers = [
        broker.call("GET", "/kbs/v0/resource/default/key/1", [bearer(token)]),
        handshake.attest(
            body=handshake.changed(primary_evidence={"svn": "1", "report_data": base64.b64encode(bytes(48)).decode()})
        ),
        other.attest(body=other.changed(nonce="wrong")),
        handshake.attest(),
        broker.call("GET", "/kbs/v0/resource/default/key/1", session(handshake.cookie)),
        broker.admin("POST", "resource-policy", policy_upload(b"package policy\nallow if {\n")),
        broker.admin("GET", "admin/status", token=broker.token_for("reference-publisher")),
    ]
    assert all(answer.status in (401, 403, 422) for answer in answers)
    said = b"".join(answer.body for answer in answers).decode()
    for secret in (
        "expected-digest-5e1f",
        "expected-svn-4711",
        "918273645546372",
        "abcde",
        "sample-demo",
        "affirming",
        "allow if",
        nonce,
        report_data,
    ):
        assert secret not in said, secret
