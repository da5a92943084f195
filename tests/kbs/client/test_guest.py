"""The guest against a broker that checks binding and seals for real."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kbs.client.errors import (
    AttestationRefused,
    ClientMisconfigured,
    NotFound,
    PolicyDenied,
    Refused,
    TokenRefused,
    TryLater,
    Unacceptable,
    UnexpectedAnswer,
    Unreachable,
)
from kbs.client.guest import GuestClient, resource_target
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol.rcar import Challenge
from tests.kbs.client.fake_broker import BASE, FakeBroker, problem

VECTOR = json.loads((Path(__file__).parents[2] / "vectors/guest/exchange.json").read_text())
SECRET = b"a secret \x00\xff"
INIT_DATA = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"key1\" = '''value1'''\n"
HANDSHAKE = ["POST auth", "POST attest"]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker({"default/key/1": SECRET})


def guest_of(broker: FakeBroker, **members: Any) -> GuestClient:
    return GuestClient(BASE, transport=broker.transport, **members)


def test_asks_first_then_attests_then_opens(broker: FakeBroker) -> None:
    assert guest_of(broker).get_resource("default/key/1") == SECRET
    assert broker.log == ["GET resource/default/key/1", *HANDSHAKE, "GET resource/default/key/1"]
    assert {request.headers["User-Agent"] for request in broker.requests} == {"attestation-agent-kbs-client/0.1.0"}
    assert "Authorization" not in broker.requests[-1].headers
    assert "Cookie" not in broker.requests[0].headers


def test_a_session_is_used_again_and_renewed_when_the_broker_forgot_it(broker: FakeBroker) -> None:
    guest = guest_of(broker)
    guest.get_resource("default/key/1")
    broker.requests.clear()
    assert guest.get_resource("default/key/1") == SECRET
    assert broker.log == ["GET resource/default/key/1"]
    broker.forget_sessions()
    broker.requests.clear()
    assert guest.get_resource("default/key/1") == SECRET
    assert broker.log == ["GET resource/default/key/1", *HANDSHAKE, "GET resource/default/key/1"]


@pytest.mark.parametrize(
    "kind", [KeyKind.EC_P256, KeyKind.EC_P384, KeyKind.EC_P521, KeyKind.RSA_OAEP_256, KeyKind.RSA1_5]
)
def test_every_kind_of_key_opens_what_is_sealed_to_it(broker: FakeBroker, kind: KeyKind) -> None:
    assert guest_of(broker, key=TeeKeyPair.generate(kind)).get_resource("default/key/1") == SECRET


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_hash_that_the_challenge_selects_is_used(algorithm: str) -> None:
    broker = FakeBroker({"default/key/1": SECRET}, algorithm=algorithm)
    assert guest_of(broker).get_resource("default/key/1") == SECRET


def test_devices_are_bound_too_and_the_primary_evidence_binds_them(broker: FakeBroker) -> None:
    guest = guest_of(broker, devices={"sampledevice": SampleAttester(svn="2"), "nvidia": SampleAttester()})
    assert guest.attest().startswith("header.")
    assert [str(tee) for tee, _ in broker.attestations[0].additional] == ["nvidia", "sampledevice"]


def test_init_data_travels_as_text_and_its_digest_reaches_the_attester(broker: FakeBroker) -> None:
    seen: list[bytes | None] = []

    class Recording:
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            seen.append(init_data)
            return SampleAttester().evidence_for(report_data)

    guest_of(broker, attester=Recording(), init_data=INIT_DATA).attest()
    document = broker.attestations[0].init_data
    assert document is not None
    assert (document.format, document.body) == ("toml", INIT_DATA)
    assert seen == [bytes.fromhex("bb7798cb46afb9e13aa4ae149c3e570dab97071251b14bad708c959ec80450a2")]
    guest_of(broker, attester=Recording()).attest()
    assert seen[1] is None
    assert broker.attestations[1].init_data is None


def test_evidence_equals_the_recorded_exchange() -> None:
    private_key = load_pem_private_key(VECTOR["private_key_pem"].encode(), None)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    key = TeeKeyPair.from_private(private_key)
    assert dict(key.public.members) == VECTOR["tee_pubkey"]
    guest = GuestClient(BASE, key=key, transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    body = json.loads(guest.attestation_for(Challenge(VECTOR["nonce"], "")))
    assert body == {
        "init-data": None,
        "runtime-data": {"nonce": VECTOR["nonce"], "tee-pubkey": VECTOR["tee_pubkey"]},
        "tee-evidence": {"primary_evidence": VECTOR["sample_evidence"], "additional_evidence": ""},
    }
    selected = Challenge(VECTOR["nonce"], {"selected-hash-algorithm": "SHA512"})
    evidence = json.loads(guest.attestation_for(selected))["tee-evidence"]["primary_evidence"]
    assert base64.b64decode(evidence["report_data"]).hex() == VECTOR["primary_sha512"]
    device = GuestClient(
        BASE,
        key=key,
        devices={"sampledevice": SampleAttester()},
        transport=httpx.MockTransport(lambda _: httpx.Response(500)),
    ).attestation_for(Challenge(VECTOR["nonce"], ""))
    additional = json.loads(json.loads(device)["tee-evidence"]["additional_evidence"])
    assert base64.b64decode(additional["sampledevice"]["report_data"]).hex() == VECTOR["device_sha384"]


def test_a_recorded_body_opens() -> None:
    private_key = load_pem_private_key(VECTOR["private_key_pem"].encode(), None)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=VECTOR["sealed_body"].encode()))
    guest = GuestClient(BASE, key=TeeKeyPair.from_private(private_key), transport=transport)
    assert guest.get_resource("default/key/1") == VECTOR["plaintext"].encode()
    with pytest.raises(UnexpectedAnswer, match="does not open"):
        GuestClient(BASE, transport=transport).get_resource("default/key/1")


def test_the_request_is_what_the_field_sends(broker: FakeBroker) -> None:
    guest_of(broker, tee="snp").challenge()
    assert json.loads(broker.requests[0].content) == {
        "version": "0.4.0",
        "tee": "snp",
        "extra-params": {"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]},
    }


def test_passport_mode_sends_the_token_alone_and_once(broker: FakeBroker) -> None:
    guest = guest_of(broker)
    token = guest.attest()
    passport = guest_of(broker, key=guest.key)
    broker.requests.clear()
    assert passport.get_resource("default/key/1", token=token) == SECRET
    assert broker.requests[0].headers["Authorization"] == f"Bearer {token}"
    broker.forget_sessions()
    with pytest.raises(TokenRefused):
        passport.get_resource("default/key/1", token=token)
    assert broker.log == ["GET resource/default/key/1"] * 2


def test_three_rounds_and_then_the_last_refusal(broker: FakeBroker) -> None:
    broker.override = lambda request: problem(401, "TokenVerifierError") if request.method == "GET" else None
    with pytest.raises(TokenRefused, match="TokenVerifierError"):
        guest_of(broker).get_resource("default/key/1")
    assert broker.log == ["GET resource/default/key/1", *HANDSHAKE] * 3


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (403, "PolicyDeny", PolicyDenied),
        (404, "ResourceNotFound", NotFound),
        (422, "JweError", Unacceptable),
        (503, "DependencyUnavailable", TryLater),
    ],
)
def test_other_refusals_end_at_once(broker: FakeBroker, status: int, name: str, error: type[Refused]) -> None:
    broker.override = lambda request: problem(status, name, reason="why", decision="0" * 32)
    with pytest.raises(error) as refused:
        guest_of(broker).get_resource("default/key/1")
    assert (refused.value.problem.reason, refused.value.problem.decision) == ("why", "0" * 32)
    assert len(broker.requests) == 1


def test_a_failed_handshake_ends_the_call(broker: FakeBroker) -> None:
    class Lying:
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            return SampleAttester().evidence_for(b"\x00" * 48)

    with pytest.raises(AttestationRefused) as refused:
        guest_of(broker, attester=Lying()).get_resource("default/key/1")
    assert refused.value.problem.reason == "binding_mismatch"
    assert refused.value.problem.decision == "d" * 32
    assert broker.log == ["GET resource/default/key/1", *HANDSHAKE]


def test_evidence_for_another_challenge_is_refused(broker: FakeBroker) -> None:
    guest = guest_of(broker)
    body = guest.attestation_for(guest.challenge())
    guest.challenge()
    with pytest.raises(AttestationRefused, match="no such challenge"):
        guest.submit(body)


def test_a_401_that_is_no_problem_document_is_an_error_and_no_reason_to_attest(broker: FakeBroker) -> None:
    broker.override = lambda request: httpx.Response(401, text="<html>go away</html>")
    with pytest.raises(UnexpectedAnswer, match="401"):
        guest_of(broker).get_resource("default/key/1")
    assert len(broker.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b'{"nonce":"a"}', b'{"nonce":1,"extra-params":""}', b'{"extra-params":""}', b"\xff"],
)
def test_a_challenge_of_another_shape_is_refused(broker: FakeBroker, answer: bytes) -> None:
    broker.override = lambda request: httpx.Response(200, content=answer)
    with pytest.raises(UnexpectedAnswer):
        guest_of(broker).challenge()


@pytest.mark.parametrize("extra", [{"selected-hash-algorithm": "md5"}, {"selected-hash-algorithm": 384}])
def test_an_unknown_hash_is_refused(broker: FakeBroker, extra: Any) -> None:
    with pytest.raises(UnexpectedAnswer, match="hash"):
        guest_of(broker).attestation_for(Challenge("n", extra))


@pytest.mark.parametrize("answer", [b"{}", b'{"token":1}', b"", b"null"])
def test_an_answer_without_a_token_is_refused(broker: FakeBroker, answer: bytes) -> None:
    broker.override = lambda request: httpx.Response(200, content=answer) if "attest" in request.url.path else None
    with pytest.raises(UnexpectedAnswer):
        guest_of(broker).attest()


@pytest.mark.parametrize("body", [b"", b"{}", b"plain text", b'{"protected":"e30"}'])
def test_a_resource_in_the_clear_or_of_another_form_is_refused(broker: FakeBroker, body: bytes) -> None:
    broker.override = lambda request: httpx.Response(200, content=body)
    with pytest.raises(UnexpectedAnswer, match="does not open"):
        guest_of(broker).get_resource("default/key/1")


def test_no_answer_is_unreachable(broker: FakeBroker) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match=r"broker\.test"):
        GuestClient(BASE, transport=httpx.MockTransport(fail)).get_resource("default/key/1")


def test_redirects_are_not_followed(broker: FakeBroker) -> None:
    broker.override = lambda request: httpx.Response(302, headers={"Location": "https://elsewhere.test/"})
    with pytest.raises(UnexpectedAnswer, match="302"):
        guest_of(broker).get_resource("default/key/1")
    assert len(broker.requests) == 1


def test_init_data_that_is_none_is_the_callers_mistake(broker: FakeBroker) -> None:
    with pytest.raises(ClientMisconfigured, match="init-data"):
        guest_of(broker, init_data="algorithm = 'md5'")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("default/key/1", "resource/default/key/1"),
        ("/default/key/1", "resource/default/key/1"),
        ("kbs:///default/key/1", "resource/default/key/1"),
        ("kbs://ignored.test/default/key/1?x=y", "resource/default/key/1?x=y"),
        ("kbs+pkcs11:///resource/a/b/c", "pkcs11/resource/a/b/c"),
        ("kbs+nebula-ca:///credential?name=a b&ip=1.2.3.4", "nebula-ca/credential?name=a%20b&ip=1.2.3.4"),
        ("default%2Fkey/1", "resource/default%2Fkey/1"),
        ("größe/a/b", "resource/gr%C3%B6%C3%9Fe/a/b"),
    ],
)
def test_addresses_become_targets(path: str, target: str) -> None:
    assert resource_target(path) == target
    sent: list[bytes] = []

    def keep(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.raw_path)
        return problem(404, "ResourceNotFound")

    with pytest.raises(NotFound):
        GuestClient(BASE + "/", transport=httpx.MockTransport(keep)).get_resource(path)
    assert sent == [f"/kbs/v0/{target}".encode()]


@pytest.mark.parametrize("path", ["https:///a/b/c", "file:///etc/passwd", "a/../b", "kbs:///./b/c", "a/.."])
def test_other_addresses_are_refused(path: str) -> None:
    with pytest.raises(ClientMisconfigured):
        resource_target(path)


def test_secrets_stay_out_of_reprs(broker: FakeBroker) -> None:
    guest = guest_of(broker)
    guest.attest()
    assert guest.cookie is not None
    assert guest.cookie not in repr(guest)
    assert "private" not in repr(guest.key).lower()


def test_closing_ends_the_connection(broker: FakeBroker) -> None:
    with guest_of(broker) as guest:
        guest.attest()
    with pytest.raises(RuntimeError, match="closed"):
        guest.attest()
