"""`whoami` behind the release door: sealed, under policy, and with nothing of what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.client.errors import PolicyDenied
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from tests.fakes.broker import TEE_KEY, BrokerUnderTest, Edge, bearer, reference_message, session
from tests.protocol.every_tee import claims_of
from tests.protocol.expect import expect

ROOT = Path(__file__).parents[2]
CANARY = "c4na4y-0f-wh4t-w4s-3xp3ct3d"
ENABLED = {"KBS__PLUGINS__ENABLED": '["resource", "whoami"]', "KBS__COMPAT__ALLOW_RSA1_5": "true"}


def broker_of(data: Path, edge: Edge) -> BrokerUnderTest:
    made = BrokerUnderTest(data, edge, settings=ENABLED)
    made.put_secret()
    made.approve_sample()
    values = {"launch_digest": ["abcde", CANARY], "svn": ["1", f"svn-{CANARY}"], f"name-{CANARY}": CANARY}
    assert made.admin("POST", "reference-value", reference_message(values)).status == 200
    made.use_policy("with-status")
    return made


@pytest.fixture(scope="module", params=list(Edge))
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_modules: None
) -> Iterator[BrokerUnderTest]:
    made = broker_of(tmp_path_factory.mktemp("whoami") / "data", request.param)
    yield made
    made.close()


def whoami(broker: BrokerUnderTest, **claims: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer, and the claims of the token."""
    guest = broker.guest(attester=SampleAttester(**claims))
    token = guest.attest()
    found: dict[str, Any] = json.loads(guest.get_resource("kbs+whoami:///status"))
    return found, claims_of(token)


def test_a_guest_learns_what_was_made_of_its_evidence(standing: BrokerUnderTest) -> None:
    found, token = whoami(standing)
    cpu = token["submods"]["cpu0"]
    assert (found["status"], found["attestation"], found["issuer"]) == ("affirming", token["jti"], token["iss"])
    assert found["submods"]["cpu0"]["claims"] == cpu["ear.veraison.annotated-evidence"]
    assert found["submods"]["cpu0"]["trust_vector"] == cpu["ear.trustworthiness-vector"]
    assert found["submods"]["cpu0"]["claims"]["protocol_version"] == "0.4.0"


@pytest.mark.parametrize("claims", [{"launch_digest": "0badc0de"}, {"debug": True}, {"svn": "7"}], ids=str)
def test_a_guest_that_is_not_good_learns_it_too_and_nothing_that_was_expected(
    standing: BrokerUnderTest, claims: dict[str, Any]
) -> None:
    found, token = whoami(standing, **claims)
    assert found["status"] in ("warning", "contraindicated")
    text = json.dumps(found)
    assert CANARY not in text
    assert not re.search(r"expected|finding|sha256|package |shipped", text)
    explained = standing.admin("GET", f"admin/decisions/{found['attestation']}").json
    assert "debug" in claims or CANARY in json.dumps(explained)  # so the canary is where it could have come from
    assert set(_texts(found)) <= {*_texts(token), *("sample", found["expires"])} | set(_names())


def _texts(value: Any) -> Iterator[str]:
    """Every member name and text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _names() -> list[str]:
    own = ["attestation", "issuer", "expires", "status", "submods", "trust_vector", "tee", "policy", "claims"]
    return [*own, "none", "affirming", "warning", "contraindicated"]


def test_it_is_sealed_to_the_guest_alone_and_on_record(standing: BrokerUnderTest) -> None:
    guest = standing.attested()
    assert guest.cookie is not None
    answer = standing.call("GET", "/kbs/v0/whoami", session(guest.cookie))
    assert answer.status == 200
    assert list(answer.json) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    record = standing.audit_records()[-1]
    assert (record["kind"], record["plugin"]) == ("release.granted", "whoami")
    stolen = guest.attest()
    with pytest.raises(Exception, match="does not open"):
        standing.guest(key=TeeKeyPair.generate()).get_resource("kbs+whoami:///status", token=stolen)


@pytest.mark.parametrize(
    "uri", ["kbs+whoami:///empty", "kbs+whoami:///guest/empty/self", "kbs+whoami://host:1/empty?x=1"]
)
@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("0.4.0", TEE_KEY), ("0.4.0", TeeKeyPair.generate(KeyKind.RSA_OAEP_256)), ("0.2.0", TEE_KEY),
        ("0.1.1", TeeKeyPair.generate(KeyKind.RSA1_5)),
    ],
    ids=["EC", "RSA-OAEP-256", "0.2.0", "0.1.1"],
)  # fmt: skip
def test_nothing_at_all_for_every_kind_of_guest(
    standing: BrokerUnderTest, uri: str, version: str, key: TeeKeyPair
) -> None:
    assert standing.guest(version=version, key=key).get_resource(uri) == b""


def test_an_empty_resource_for_those_who_ask_for_resources_only(tmp_path: Path, shared_modules: None) -> None:
    broker = broker_of(tmp_path / "data", Edge.ASGI)
    broker.use_policy("sample-demo")
    broker.put_secret("default/attested/empty", b"")
    assert broker.guest().get_resource("kbs:///default/attested/empty") == b""
    broker.close()


def test_who_did_not_attest_gets_nothing(standing: BrokerUnderTest) -> None:
    for path in ("whoami", "whoami/", "whoami/status", "whoami/empty", "whoami/nothing"):
        expect(standing.call("GET", f"/kbs/v0/{path}"), 401, "TokenNotFound", "token_missing")
    for method in ("POST", "PUT", "DELETE"):
        expect(standing.call(method, "/kbs/v0/whoami/status", [bearer(standing.admin_token)]), 405, "MethodNotAllowed")


def test_other_paths_are_absent(standing: BrokerUnderTest) -> None:
    guest = standing.attested()
    assert guest.cookie is not None
    for path in ("x", "status/y", "guest/status/other", "%2e%2e/status"):
        answer = standing.call("GET", f"/kbs/v0/whoami/{path}", session(guest.cookie))
        expect(answer, 404, "ResourceNotFound", decided=True)


@pytest.mark.parametrize("policy", ["affirming", "allow-all", "deny-all", "sample-demo"])
def test_policy_decides_and_the_default_says_no(tmp_path: Path, shared_modules: None, policy: str) -> None:
    broker = broker_of(tmp_path / "data", Edge.ASGI)
    broker.use_policy(policy)
    for uri in ("kbs+whoami:///status", "kbs+whoami:///empty"):
        with pytest.raises(PolicyDenied):
            broker.guest().get_resource(uri)
    broker.close()


def test_it_is_off_unless_enabled(tmp_path: Path, shared_modules: None) -> None:
    broker = BrokerUnderTest(tmp_path / "data", Edge.ASGI)
    broker.use_policy("with-status")
    guest = broker.attested()
    assert guest.cookie is not None
    expect(broker.call("GET", "/kbs/v0/whoami/status", session(guest.cookie)), 404, "PluginNotFound")
    broker.close()


def test_the_policy_that_tells_everybody_opens_nothing_else(standing: BrokerUnderTest) -> None:
    found, _ = whoami(standing, launch_digest="0badc0de")
    assert found["status"] == "warning"
    with pytest.raises(PolicyDenied):
        standing.guest().get_resource("default/key/1")
