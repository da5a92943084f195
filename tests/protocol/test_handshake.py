"""`auth` and `attest` on the wire (KBS protocol 2, conformance items 1 to 4 and 7, with our outcomes)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import Request as UrlRequest

import pytest

from kbs.client.tee_keys import KeyKind, TeeKeyPair
from tests.fakes.broker import START, TEE_KEY, BrokerUnderTest, Edge, Request, session
from tests.protocol.expect import expect

AUTH = "/kbs/v0/auth"
ATTEST = "/kbs/v0/attest"
FIRST = {"version": "0.4.0", "tee": "sample", "extra-params": ""}
TABLE = json.loads((Path(__file__).parents[1] / "vectors/kbs/table-vectors.json").read_text())


def auth(broker: BrokerUnderTest, document: Any) -> Any:
    return broker.call("POST", AUTH, body=document if isinstance(document, bytes) else json.dumps(document).encode())


# --- auth -------------------------------------------------------------------------------------------------------------


def test_a_challenge_has_both_members_in_order_and_a_cookie(standing: BrokerUnderTest) -> None:
    answer = auth(standing, {**FIRST, "extra-params": {"supported-hash-algorithms": ["sha384"]}, "more": 1})
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert list(answer.json) == ["nonce", "extra-params"]
    assert answer.json["extra-params"] == ""
    assert len(answer.json["nonce"]) == 44
    assert len(base64.b64decode(answer.json["nonce"], validate=True)) == 32


def test_the_cookie_has_expires_and_nothing_else(standing: BrokerUnderTest) -> None:
    """Two setters with the same attributes leave one cookie in a jar (KBS protocol 2.6)."""
    header = auth(standing, FIRST).header("set-cookie")
    match = re.fullmatch(r"kbs-session-id=[A-Za-z0-9_-]+; Expires=([^;]+ GMT)", header)
    assert match
    assert (parsedate_to_datetime(match[1]) - standing.clock()).total_seconds() == 300


class _HttpAnswer:
    """As much of `http.client.HTTPResponse` as a cookie jar looks at."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        from email.message import Message

        self._message = Message()
        for name, value in headers:
            self._message[name] = value

    def info(self) -> Any:
        return self._message


def test_a_jar_keeps_one_cookie_and_sends_it_to_every_path(broker: BrokerUnderTest) -> None:
    jar = CookieJar()
    handshake = broker.handshake()
    for path, answer in ((AUTH, auth(broker, FIRST)), (ATTEST, handshake.attest())):
        headers = tuple((name, value.replace("2026", "2099")) for name, value in answer.headers)
        jar.extract_cookies(_HttpAnswer(headers), UrlRequest(f"https://kbs.test{path}"))  # type: ignore[arg-type]
    ((name, path, secure),) = {(cookie.name, cookie.path, cookie.secure) for cookie in jar}
    assert (name, path, secure) == ("kbs-session-id", "/kbs/v0", False)
    wanted = UrlRequest("https://kbs.test/kbs/v0/resource/default/key/1")
    jar.add_cookie_header(wanted)
    assert wanted.get_header("Cookie", "").startswith("kbs-session-id=")


def test_nonces_do_not_repeat(standing: BrokerUnderTest) -> None:
    answers = [auth(standing, FIRST) for _ in range(200)]
    assert len({answer.json["nonce"] for answer in answers}) == 200
    assert len({answer.cookie for answer in answers}) == 200


@pytest.mark.parametrize("row", TABLE["request_version (2.2)"], ids=lambda row: row["version"] or "empty")
def test_versions(standing: BrokerUnderTest, row: dict[str, Any]) -> None:
    """Our outcome is 400 (decisions, status table); the reference's is 401."""
    answer = auth(standing, {**FIRST, "version": row["version"]})
    if row["accepted"] or row["version"] in ("0.1.0", "0.1.1", "0.2.0"):  # those by the reference of their time
        assert answer.status == 200
        return
    expect(answer, 400, "AttestationError", "unsupported_version")
    detail = answer.json["detail"]
    assert detail.startswith("Attestation error: RCAR handshake Auth failed: ")
    assert "KBS Client Protocol Version Mismatch" in detail
    assert "0.4.0" in detail


@pytest.mark.parametrize(
    "body",
    [
        {"version": "0.4.0", "tee": "sample"},
        {"version": "0.4.0", "extra-params": ""},
        {"tee": "sample", "extra-params": ""},
        {**FIRST, "version": 4},
        {**FIRST, "tee": None},
        ["0.4.0", "sample", ""],
        b"",
        b"null",
        b"not json",
        b"{}",
        b"\xef\xbb\xbf" + json.dumps(FIRST).encode(),
        json.dumps(FIRST).encode() + b"{}",
        b'{"version":"0.4.0","tee":"sample","tee":"sample","extra-params":""}',
        b'{"version":"0.4.0","tee":"sample","extra-params":"\xff"}',
        b'{"version":"0.4.0","tee":"sample","extra-params":"\\ud800"}',
        b'{"version":"0.4.0","tee":"sample","extra-params":NaN}',
        b'{"version":"0.4.0","tee":"sample","extra-params":1e999}',
        b'{"version":"0.4.0","tee":"sample","extra-params":' + b"9" * 65 + b"}",
        b'{"version":"0.4.0","tee":"sample","extra-params":' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"version":"0.4.0","tee":"sample","extra-params":[' + b"0," * 50_000 + b"0]}",
    ],
    ids=lambda body: repr(body)[:60],
)
def test_a_request_that_does_not_decode(standing: BrokerUnderTest, body: Any) -> None:
    answer = auth(standing, body)
    expect(answer, 400, "AttestationError", "malformed_request")
    assert answer.json["detail"].startswith("Attestation error: RCAR handshake Auth failed: ")


@pytest.mark.parametrize("tee", ["tdx", "Sample", "nope", "", "azsnpvtpm"])
def test_a_tee_unknown_or_not_enabled(standing: BrokerUnderTest, tee: str) -> None:
    expect(auth(standing, {**FIRST, "tee": tee}), 400, "AttestationError", "tee_not_enabled")


@pytest.mark.parametrize("deep", [b"[" * 63 + b"]" * 63, b'"' + b"x" * 1000 + b'"', b"9" * 64])
def test_a_request_at_the_limits_of_shape(standing: BrokerUnderTest, deep: bytes) -> None:
    assert auth(standing, b'{"version":"0.4.0","tee":"sample","extra-params":' + deep + b"}").status == 200


# --- attest -----------------------------------------------------------------------------------------------------------


def test_attest_answers_with_a_token_and_the_same_cookie(broker: BrokerUnderTest) -> None:
    handshake = broker.handshake()
    answer = handshake.attest()
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert list(answer.json) == ["token"]
    assert answer.json["token"].count(".") == 2
    assert answer.cookie == handshake.cookie
    assert "; Expires=Mon, 15 Jun 2026 12:05:00 GMT" in (answer.header("set-cookie") or "")


@pytest.mark.parametrize("cookie", [None, "", "x", "kbs", "%00", "A" * 200, "A" * 9000, "é", "=;=", '"quoted"'])
def test_attest_with_no_good_cookie_is_as_with_none(standing: BrokerUnderTest, cookie: str | None) -> None:
    body = standing.handshake().body
    headers = {} if cookie is None else session(cookie)
    expect(standing.call("POST", ATTEST, headers, body), 401, "AttestationError", "handshake_unknown")


def test_the_first_cookie_of_that_name_counts(broker: BrokerUnderTest) -> None:
    handshake = broker.handshake()
    mixed = f"other=1; kbs-session-id={handshake.cookie}; kbs-session-id=junk"
    assert broker.call("POST", ATTEST, {"Cookie": mixed}, handshake.body).status == 200


def test_a_cookie_sealed_under_another_key_is_as_none(broker: BrokerUnderTest, tmp_path: Path) -> None:
    stranger = BrokerUnderTest(tmp_path / "stranger", broker.edge, own_keys=True)
    handshake = broker.handshake()
    answer = handshake.attest(cookie=stranger.handshake().cookie)
    stranger.close()
    expect(answer, 401, "AttestationError", "handshake_unknown")


def test_every_flipped_bit_of_a_cookie_is_as_none(standing: BrokerUnderTest) -> None:
    handshake = standing.handshake()
    sealed = base64.urlsafe_b64decode(handshake.cookie + "==")
    for at in range(0, len(sealed), 7):
        spoilt = bytearray(sealed)
        spoilt[at] ^= 1
        cookie = base64.urlsafe_b64encode(spoilt).rstrip(b"=").decode()
        assert handshake.attest(cookie=cookie).json["reason"] == "handshake_unknown"
    assert handshake.attest().status == 200


def other_key() -> dict[str, str]:
    return dict(TeeKeyPair.generate().public.members)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tee_pubkey": other_key()}, "binding_mismatch"),
        ({"primary_evidence": {"svn": "1", "report_data": base64.b64encode(bytes(48)).decode()}}, "binding_mismatch"),
        ({"primary_evidence": {"svn": "1"}}, "evidence_malformed"),
        ({"primary_evidence": "text"}, "evidence_malformed"),
        ({"primary_evidence": None}, "evidence_malformed"),
        ({"additional_evidence": '{"sampledevice":{"svn":"2","report_data":""}}'}, "binding_mismatch"),
        ({"nonce": "AAAA"}, "nonce_mismatch"),
        ({"nonce": ""}, "nonce_mismatch"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_refused_evidence_spends_the_challenge(broker: BrokerUnderTest, changes: dict[str, Any], reason: str) -> None:
    """A difference from the reference, which lets a session try again."""
    handshake = broker.handshake()
    answer = handshake.attest(body=handshake.changed(**changes))
    expect(answer, 401, "AttestationError", reason, decided=True)
    assert answer.json["detail"].startswith("Attestation error: RCAR handshake Attest failed: ")
    record = broker.audit_records()[-1]
    assert (record["kind"], record["decision"]) == ("evidence.refused", answer.json["decision"])
    expect(handshake.attest(), 401, "AttestationError", "challenge_used")


@pytest.mark.parametrize(
    "changes",
    [
        {"tee_pubkey": {"kty": "EC"}},
        {"tee_pubkey": {**dict(TEE_KEY.public.members), "crv": "P-192"}},
        {"tee_pubkey": {**dict(TEE_KEY.public.members), "alg": "dir"}},
        {"tee_pubkey": {**dict(TEE_KEY.public.members), "kty": "oct"}},
        {"tee_pubkey": {**dict(TEE_KEY.public.members), "x": "AA"}},
        {"tee_pubkey": None},
        {"nonce": 1},
        {"additional_evidence": {}},
        {"additional_evidence": "[]"},
        {"additional_evidence": '{"nope":1}'},
        {"additional_evidence": '{"tdx":1}'},
        {"init_data": {"format": "json", "body": "{}"}},
        {"init_data": {"format": "toml", "body": "not toml ="}},
        {"init_data": "text"},
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_body_that_does_not_decode_leaves_the_challenge(broker: BrokerUnderTest, changes: dict[str, Any]) -> None:
    handshake = broker.handshake()
    expect(handshake.attest(body=handshake.changed(**changes)), 400, "AttestationError")
    assert handshake.attest().status == 200


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\x00", b'{"a":1,"a":1}'])
def test_garbage_leaves_the_challenge(broker: BrokerUnderTest, body: bytes) -> None:
    handshake = broker.handshake()
    expect(handshake.attest(body=body), 400, "AttestationError", "malformed_request")
    assert handshake.attest().status == 200


def test_a_challenge_lives_its_time_and_no_longer(broker: BrokerUnderTest) -> None:
    early, late = broker.handshake(), broker.handshake()
    broker.clock.advance(299)
    assert early.attest().status == 200
    broker.clock.advance(1)
    expect(late.attest(), 401, "AttestationError", "challenge_expired")
    expect(early.attest(), 401, "AttestationError", "challenge_expired")


def test_the_same_body_again_gets_the_same_token(broker: BrokerUnderTest) -> None:
    handshake = broker.handshake()
    first = handshake.attest()
    broker.clock.advance(30)
    again = handshake.attest()
    assert (again.status, again.body, again.cookie) == (200, first.body, first.cookie)


BODIES = ("same", "other-key", "other-evidence")
MOMENTS = ("success", "failure", "other-session", "other-client", "restart", "expiry")


@pytest.mark.parametrize(("moment", "which"), list(product(MOMENTS, BODIES)))
def test_replays(tmp_path: Path, edge: Edge, shared_modules: None, moment: str, which: str) -> None:
    """Each replay ends in 401, or for the identical body of a finished session in the identical token."""
    broker = BrokerUnderTest(tmp_path / "data", edge, settings={"KBS__STORAGE__KIND": "sqlite"})
    handshake = broker.handshake()
    bodies = {
        "same": handshake.body,
        "other-key": handshake.changed(tee_pubkey=other_key()),
        "other-evidence": handshake.changed(primary_evidence={"svn": "2", "report_data": ""}),
    }
    replay, token = bodies[which], None
    try:
        if moment == "failure":
            assert handshake.attest(body=handshake.changed(nonce="AAAA")).status == 401
        else:
            token = handshake.attest().json["token"]
        cookie = handshake.cookie
        match moment:
            case "other-session":
                cookie = broker.handshake().cookie
            case "other-client":
                cookie = broker.handshake(key=TeeKeyPair.generate()).cookie
            case "restart":
                broker.restart()
            case "expiry":
                broker.clock.advance(301)
        answer = handshake.attest(body=replay, cookie=cookie)
        if moment in ("success", "restart") and which == "same":
            assert answer.status == 200
            assert answer.json["token"] == token
        else:
            assert (answer.status, answer.name) == (401, "AttestationError")
    finally:
        broker.close()


def test_concurrent_answers_to_one_challenge(broker: BrokerUnderTest) -> None:
    """100 pairs: at most one is verified; the other gets a clean refusal or the same token (P-REL-4)."""
    for _ in range(100):
        handshake = broker.handshake()
        answers = broker.send_all([handshake.request(), handshake.request()])
        tokens = {answer.body for answer in answers if answer.status == 200}
        assert len(tokens) == 1
        assert all(answer.status == 200 or answer.json["reason"] == "challenge_used" for answer in answers)
    accepted = [record for record in broker.audit_records() if record["kind"] == "evidence.accepted"]
    assert len(accepted) == 100


def test_mixtures_of_two_sessions(broker: BrokerUnderTest) -> None:
    """P-REL-3: key, evidence and cookie of two sessions swapped in all ways; only the honest ones pass."""
    for swap in product((False, True), repeat=3):
        mine, theirs = broker.handshake(), broker.handshake(key=TeeKeyPair.generate())
        document, other = json.loads(mine.body), json.loads(theirs.body)
        cookie = theirs.cookie if swap[0] else mine.cookie
        if swap[1]:
            document["runtime-data"] = other["runtime-data"]
        if swap[2]:
            document["tee-evidence"] = other["tee-evidence"]
        answer = mine.attest(body=json.dumps(document).encode(), cookie=cookie)
        assert (answer.status == 200) == (swap in ((False,) * 3, (True,) * 3)), swap


def test_a_new_auth_leaves_older_sessions_alone(broker: BrokerUnderTest) -> None:
    older = broker.handshake()
    newer = broker.handshake()
    assert older.attest().status == newer.attest().status == 200


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.EC_P521, KeyKind.RSA_OAEP_256])
def test_every_kind_of_key_opens_its_answer(broker: BrokerUnderTest, kind: KeyKind) -> None:
    guest = broker.guest(key=TeeKeyPair.generate(kind))
    assert guest.get_resource("default/key/1") == b"a secret"


def test_the_answer_is_framed_as_guests_need_it(broker: BrokerUnderTest) -> None:
    """Conformance item 6: header in canonical order, five members, base64url without padding."""
    guest = broker.attested()
    assert guest.cookie is not None
    answer = broker.call("GET", "/kbs/v0/resource/default/key/1", session(guest.cookie))
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("set-cookie") is None
    document = answer.json
    assert list(document) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    assert all("=" not in value for value in document.values())
    protected = base64.urlsafe_b64decode(document["protected"] + "==")
    assert protected.startswith(b'{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"')
    assert b" " not in protected


def test_an_rsa1_5_key_attests_and_is_told_at_the_resource(broker: BrokerUnderTest) -> None:
    guest = broker.attested(key=TeeKeyPair.generate(KeyKind.RSA1_5))
    assert guest.cookie is not None
    answer = broker.call("GET", "/kbs/v0/resource/default/key/1", session(guest.cookie))
    expect(answer, 422, "JweError", "tee_key_unusable", decided=True)


def test_a_session_is_the_first_32_octets_of_nothing_we_sent(standing: BrokerUnderTest) -> None:
    """The nonce cannot be told from the cookie, nor one cookie from another of the same moment."""
    first, second = auth(standing, FIRST), auth(standing, FIRST)
    nonce = base64.b64decode(first.json["nonce"])
    for answer in (first, second):
        sealed = base64.urlsafe_b64decode(answer.cookie + "==")
        assert nonce not in sealed
        assert hashlib.sha256(nonce).digest() not in sealed
    assert first.cookie[:16] != second.cookie[:16]


def test_auth_keeps_nothing(broker: BrokerUnderTest) -> None:
    """P-DOS-3: challenges live in cookies; neither the store nor the audit log grows."""
    records = len(broker.audit_records())
    token = broker.broker.store.change_token()
    for _ in range(50):
        auth(broker, FIRST)
    assert len(broker.audit_records()) == records
    assert broker.broker.store.change_token() == token


def test_at_start(standing: BrokerUnderTest) -> None:
    assert standing.clock() == START
    assert standing.send(Request("GET", "/healthz")).status == 200
