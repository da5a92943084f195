"""Reading resources: where the token comes from, who is refused and how (KBS protocol 5 and 7, conformance item 5)."""

from __future__ import annotations

import pytest

from kbs.client.tee_keys import TeeKeyPair
from tests.fakes.broker import BrokerUnderTest, bearer, session
from tests.protocol.expect import expect

SECRET = "/kbs/v0/resource/default/key/1"
JUNK = (None, "", "x", "A" * 300, "é", "../..", "=")


@pytest.fixture
def token(standing: BrokerUnderTest) -> str:
    return standing.guest().attest()


def test_fresh_guests_are_asked_to_attest(standing: BrokerUnderTest) -> None:
    answer = standing.call("GET", SECRET)
    expect(answer, 401, "TokenNotFound", "token_missing")
    assert answer.json["detail"] == "Attestation Token not found"


@pytest.mark.parametrize("cookie", JUNK)
def test_a_garbage_cookie_is_as_none(standing: BrokerUnderTest, cookie: str | None) -> None:
    headers = {} if cookie is None else session(cookie)
    expect(standing.call("GET", SECRET, headers), 401, "TokenNotFound", "token_missing")


@pytest.mark.parametrize("cookie", JUNK)
def test_a_bearer_token_works_beside_any_garbage_cookie(
    standing: BrokerUnderTest, token: str, cookie: str | None
) -> None:
    headers = [bearer(token), *(() if cookie is None else session(cookie).items())]
    assert standing.call("GET", SECRET, headers).status == 200


def test_an_unfinished_or_expired_session_is_as_none(broker: BrokerUnderTest) -> None:
    unfinished, finished = broker.handshake(), broker.attested()
    assert finished.cookie is not None
    expect(broker.call("GET", SECRET, session(unfinished.cookie)), 401, "TokenNotFound")
    assert broker.call("GET", SECRET, session(finished.cookie)).status == 200
    broker.clock.advance(300)
    expect(broker.call("GET", SECRET, session(finished.cookie)), 401, "TokenNotFound")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("bearer {}", "TokenNotFound"),
        ("BEARER {}", "TokenNotFound"),
        ("Basic {}", "TokenNotFound"),
        ("{}", "TokenNotFound"),
        ("Bearer", "TokenNotFound"),
        ("Bearer ", "TokenNotFound"),
        ("Bearer  {}", "TokenVerifierError"),
        ("Bearer\t{}", "TokenNotFound"),
        ("Bearer {} ", "TokenVerifierError"),
        ("Bearer {}.x", "TokenVerifierError"),
        ("Bearer x.y.z", "TokenVerifierError"),
        ("Bearer ..", "TokenVerifierError"),
        ("Bearer é", "TokenVerifierError"),
    ],
)
def test_the_bearer_scheme(standing: BrokerUnderTest, token: str, value: str, name: str) -> None:
    answer = standing.call("GET", SECRET, {"Authorization": value.format(token)})
    expect(answer, 401, name, decided=name == "TokenVerifierError")


def test_two_authorization_headers_are_no_token(standing: BrokerUnderTest, token: str) -> None:
    """Neither the first nor the last is picked."""
    answer = standing.call("GET", SECRET, [bearer(token), bearer(token)])
    expect(answer, 401, "TokenVerifierError", "token_rejected", decided=True)


def test_every_changed_character_of_a_token_refuses_it(standing: BrokerUnderTest, token: str) -> None:
    for at in range(0, len(token), 37):
        other = "A" if token[at] != "A" else "B"
        spoilt = token[:at] + other + token[at + 1 :]
        assert standing.call("GET", SECRET, [bearer(spoilt)]).name == "TokenVerifierError"


def test_an_expired_token_is_refused(broker: BrokerUnderTest) -> None:
    token = broker.guest().attest()
    broker.clock.advance(300 + 60)
    assert broker.call("GET", SECRET, [bearer(token)]).status == 200
    broker.clock.advance(1)
    expect(broker.call("GET", SECRET, [bearer(token)]), 401, "TokenVerifierError", decided=True)


def test_a_token_of_60_kib_is_looked_at_and_one_over_96_is_refused(standing: BrokerUnderTest, token: str) -> None:
    for size in (60 << 10, 97 << 10):
        answer = standing.call("GET", SECRET, [bearer(token + "A" * (size - len(token)))])
        expect(answer, 401, "TokenVerifierError", decided=True)


def test_an_admin_token_is_no_attestation_token(standing: BrokerUnderTest) -> None:
    expect(standing.call("GET", SECRET, [bearer(standing.admin_token)]), 401, "TokenVerifierError", decided=True)


def test_denied_by_policy(broker: BrokerUnderTest) -> None:
    broker.use_policy("deny-all")
    token = broker.guest().attest()
    answer = broker.call("GET", SECRET, [bearer(token)])
    expect(answer, 403, "PolicyDeny", "policy_denied", decided=True)
    assert answer.json["detail"] == "Access denied by policy"


def test_a_denial_does_not_say_whether_the_resource_exists(broker: BrokerUnderTest) -> None:
    broker.use_policy("deny-all")
    token = broker.guest().attest()
    there, absent = (
        broker.call("GET", f"/kbs/v0/resource/{path}", [bearer(token)]) for path in ("default/key/1", "a/b/c")
    )
    assert {**there.json, "instance": 0, "decision": 0} == {**absent.json, "instance": 0, "decision": 0}


def test_the_default_policy_refuses_the_sample_tee(broker: BrokerUnderTest) -> None:
    broker.use_policy("affirming")
    token = broker.guest().attest()
    expect(broker.call("GET", SECRET, [bearer(token)]), 403, "PolicyDeny", decided=True)


@pytest.mark.parametrize("path", ["a/b/c", "default/key", "default/key/1/2", "", "default/key/", ".a/b/c", "a//c"])
def test_absent_resources(standing: BrokerUnderTest, token: str, path: str) -> None:
    answer = standing.call("GET", f"/kbs/v0/resource/{path}", [bearer(token)])
    expect(answer, 404, "ResourceNotFound", "resource_not_found", decided=True)


@pytest.mark.parametrize("path", ["nope/x", "", "Resource/default/key/1", "resource2", "nope%00", "res%C3%BC"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_unknown_plugins(standing: BrokerUnderTest, token: str, method: str, path: str) -> None:
    answer = standing.call(method, f"/kbs/v0/{path}", [bearer(token)])
    expect(answer, 404, "PluginNotFound", "plugin_not_found")
    assert answer.json["detail"].startswith("Plugin ")
    assert answer.json["detail"].endswith(" not found")


def test_put_is_not_allowed_on_resources(standing: BrokerUnderTest, token: str) -> None:
    answer = standing.call("PUT", SECRET, [bearer(token)], b"x")
    expect(answer, 405, "MethodNotAllowed", "method_not_allowed")
    assert answer.header("allow") == "GET, POST, DELETE"


def test_the_answer_is_sealed_to_the_key_in_the_token(standing: BrokerUnderTest) -> None:
    """Whoever steals a token gets an answer that only the attested key opens."""
    owner = standing.guest(key=TeeKeyPair.generate())
    token = owner.attest()
    assert standing.guest(key=owner.key).get_resource("default/key/1", token=token) == b"a secret"
    thief = standing.guest(key=TeeKeyPair.generate())
    with pytest.raises(Exception, match="does not open"):
        thief.get_resource("default/key/1", token=token)
    answer = standing.call("GET", SECRET, [bearer(token)])
    assert b"a secret" not in answer.body


def test_grants_and_refusals_are_on_record(broker: BrokerUnderTest) -> None:
    token = broker.guest().attest()
    assert broker.call("GET", SECRET, [bearer(token)]).status == 200
    refused = broker.call("GET", "/kbs/v0/resource/a/b/c", [bearer(token)])
    *_, granted, denied = broker.audit_records()
    assert (granted["kind"], granted["plugin"], granted["path"]) == ("release.granted", "resource", "default/key/1")
    assert (denied["kind"], denied["decision"]) == ("release.denied", refused.json["decision"])
    assert denied["reason"] == "resource_not_found"


def test_a_deleted_resource_is_gone(broker: BrokerUnderTest) -> None:
    token = broker.guest().attest()
    assert broker.admin("DELETE", "resource/default/key/1").status == 200
    expect(broker.call("GET", SECRET, [bearer(token)]), 404, "ResourceNotFound", decided=True)


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_resources_of_every_size(broker: BrokerUnderTest, size: int) -> None:
    broker.put_secret("a/b/c", bytes(size))
    assert broker.guest().get_resource("a/b/c") == bytes(size)
