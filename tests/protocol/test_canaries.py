"""P-LOG-1: a canary in every position of input; nothing written holds one, at any log level. P-LOG-2: metric labels."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator

import pytest

from kbs.protocol import base64url
from kbs.web.log import JsonFormatter
from tests.fakes.broker import METRICS_PORT, BrokerUnderTest, Request, bearer, policy_upload, reference_message, session

CANARY = "canary-7d0e93b1"
SECRET = b"secret-bytes-canary-2b61"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that any logger says, from DEBUG up, as `kbs serve` would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def forms(text: str | bytes) -> list[str]:
    """A canary and what it looks like encoded."""
    raw = text.encode() if isinstance(text, str) else text
    padded = [base64.b64encode(bytes(shift) + raw)[4:-4].decode() for shift in range(3)]
    return [raw.decode("latin-1"), raw.hex(), base64url.encode(raw).decode(), *padded]


def requests() -> list[Request]:
    """The canary in each position of a request where nothing but the caller's own words may stand."""
    first = {"version": "0.4.0", "tee": "sample", "extra-params": ""}
    found = [
        Request("POST", "/kbs/v0/auth", body=json.dumps(document).encode())
        for document in (
            {**first, "version": CANARY},
            {**first, "tee": CANARY},
            {**first, "extra-params": CANARY},
            {**first, CANARY: CANARY},
            [CANARY],
            CANARY,
        )
    ]
    found += [Request("POST", "/kbs/v0/auth", body=body) for body in (CANARY.encode(), f'{{"a":"{CANARY}'.encode())]
    for target in ("/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/resource-policy", "/kbs/v0/resource/a/b/c", "/healthz"):
        for method in ("GET", "POST", "HEAD"):
            found += [
                Request(method, target, {header: value}, b"{}" if method == "POST" else b"")
                for header in ("Authorization", "Cookie", "X-Other", "Content-Encoding", "If-Match", "User-Agent")
                for value in (CANARY, f"Bearer {CANARY}", f"Bearer a.{CANARY}.b", f"kbs-session-id={CANARY}")
            ]
            found.append(Request(method, f"{target}?x={CANARY}&{CANARY}=1"))
    return found


def guests(broker: BrokerUnderTest) -> None:
    """Handshakes good and bad whose every member is or holds a canary."""
    broker.guest(init_data=f'version = "0.1.0"\nalgorithm = "sha384"\n[data]\nkey = "{CANARY}"\n').attest()
    for changes in (
        {"nonce": CANARY},
        {"primary_evidence": CANARY},
        {"primary_evidence": {"svn": CANARY, "report_data": CANARY}},
        {"primary_evidence": {CANARY: CANARY}},
        {"primary_evidence": {"svn": "1", "report_data": base64.b64encode(CANARY.encode()).decode()}},
        {"additional_evidence": CANARY},
        {"additional_evidence": json.dumps({CANARY: CANARY})},
        {"additional_evidence": json.dumps({"sampledevice": CANARY})},
        {"init_data": {"format": CANARY, "body": CANARY}},
        {"init_data": {"format": "toml", "body": CANARY}},
        {"init_data": {"format": "toml", "body": f'version = "{CANARY}"\nalgorithm = "{CANARY}"\n[data]\n'}},
        {"tee_pubkey": {"kty": CANARY}},
        {"tee_pubkey": {"kty": "EC", "crv": CANARY, "alg": CANARY, "x": CANARY, "y": CANARY}},
        {"tee_pubkey": {"kty": "RSA", "alg": "RSA-OAEP-256", "n": CANARY, "e": CANARY}},
    ):
        handshake = broker.handshake()
        assert handshake.attest(body=handshake.changed(**changes)).status in (400, 401)


def administrators(broker: BrokerUnderTest) -> None:
    """Uploads that hold a canary, good and bad."""
    broker.put_secret("a/b/c", SECRET)
    broker.admin("POST", "resource/a/b", SECRET)
    broker.admin("POST", "resource-policy", policy_upload(f"package policy\n# {CANARY}\nallow if {CANARY}\n".encode()))
    broker.admin("POST", "resource-policy", policy_upload(CANARY.encode()))
    broker.admin("POST", "attestation-policy", policy_upload(CANARY.encode(), policy_id="x", **{CANARY: CANARY}))
    broker.admin("POST", "reference-value", reference_message({"some_value": CANARY}))
    broker.admin("POST", "reference-value", json.dumps({"type": "sample", "payload": CANARY}).encode())
    broker.admin("POST", "admin/tokens", json.dumps({"subject": f"{CANARY}!", "role": f"{CANARY}!"}).encode())
    made = broker.admin("POST", "admin/tokens", b'{"subject":"ann","role":"auditor"}').json
    broker.admin("GET", "admin/status", token=made["token"] + CANARY)


def test_nothing_written_holds_a_canary(broker: BrokerUnderTest, written: io.StringIO) -> None:
    answers = [broker.send(request) for request in requests()]
    guests(broker)
    administrators(broker)
    guest = broker.guest()
    token = guest.attest()
    assert guest.get_resource("a/b/c") == SECRET
    assert guest.cookie is not None
    answers += [
        broker.call("GET", "/kbs/v0/resource/a/b/d", session(guest.cookie)),
        broker.call("GET", "/kbs/v0/resource/a/b/c", [bearer(token[:-8] + "AAAAAAAA")]),
        broker.admin("POST", "resource-policy", CANARY.encode()),
        broker.admin("GET", "admin/resources"),
        broker.admin("GET", "admin/status"),
    ]
    metrics = broker.broker.metrics.exposition().decode()
    text = written.getvalue()
    audit = (broker.data / "audit/log.jsonl").read_text()
    bodies = "".join(answer.body.decode("latin-1") for answer in answers)
    assert text
    assert audit
    places = {"logs": text, "audit": audit, "metrics": metrics, "bodies": bodies}
    for secret in (*forms(SECRET), token, guest.cookie, broker.admin_token):
        assert not [place for place, said in places.items() if secret in said]
    del places["bodies"]  # a peer may read its own words
    for form in forms(CANARY):
        assert not [place for place, said in places.items() if form in said]


def test_the_forms_of_a_canary_are_found() -> None:
    """A positive control of the search above."""
    for before in (b"", b"a", b"ab", b"abc"):
        whole = before + CANARY.encode() + b"!"
        for said in (whole.decode(), whole.hex(), base64.b64encode(whole).decode(), base64url.encode(whole).decode()):
            assert any(form in said for form in forms(CANARY)), said


def test_a_bug_does_not_log_what_it_tripped_over(
    broker: BrokerUnderTest, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(*_: object, **__: object) -> None:
        raise ValueError(f"cannot read {CANARY}") from KeyError(CANARY)

    monkeypatch.setattr("kbs.handshake.service.Handshakes.challenge", trip)
    assert broker.call("POST", "/kbs/v0/auth", body=b"{}").status == 500
    text = written.getvalue()
    assert CANARY not in text
    assert "ValueError" in text
    assert "KeyError" in text
    assert "test_canaries.py" in text


def test_log_lines_cannot_be_forged(standing: BrokerUnderTest, written: io.StringIO) -> None:
    for path in ("a%0d%0a{}", "a\x1b[31m", "a\x85\x9b", "a" * 60_000):
        standing.call("GET", f"/kbs/v0/resource/{path}", [("Authorization", "Bearer \x1b[31m")])
    lines = written.getvalue().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert line.isascii()
        assert line.isprintable()


def test_metrics_do_not_grow_with_what_is_asked_for(standing: BrokerUnderTest) -> None:
    """P-LOG-2: as many series after a thousand paths as before."""
    token = standing.guest().attest()
    standing.call("GET", "/kbs/v0/resource/a/b/c", [bearer(token)])

    def series() -> set[str]:
        lines = standing.broker.metrics.exposition().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    before = series()
    for at in range(500):
        standing.call("GET", f"/kbs/v0/resource/a/b/{at}", [bearer(token)])
        standing.call("GET", f"/kbs/v0/plugin{at}/{at}")
    assert series() == before


def test_metrics_have_the_names_of_the_field(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__SERVER__METRICS_LISTEN": f"127.0.0.1:{METRICS_PORT}"})
    token = broker.guest().attest()
    broker.put_secret()
    broker.call("GET", "/kbs/v0/resource/default/key/1", [bearer(token)])
    answer = broker.call("GET", "/metrics", port=METRICS_PORT)
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4"
    values = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    assert float(values["kbs_auth_requests_total"]) == 1
    assert float(values["kbs_auth_successes_total"]) == 1
    assert float(values["kbs_attestation_requests_total"]) == 1
    assert float(values["kbs_policy_evaluations_total"]) == 1
    assert float(values["kbs_insecure_switches"]) == 1
    assert float(values["kbs_http_requests_total"]) >= 3
    assert any(name.startswith("kbs_build_info{") for name in values)


def test_the_jwk_set_verifies_our_tokens(standing: BrokerUnderTest) -> None:
    answer = standing.call("GET", "/.well-known/jwks.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    token = standing.guest().attest()
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    (key,) = [each for each in answer.json["keys"] if each["kid"] == header["kid"]]
    assert "d" not in key
    assert standing.call("GET", "/.well-known/openid-configuration").status == 404


def test_discovery_is_there_once_the_broker_knows_its_name(broker: BrokerUnderTest) -> None:
    broker.restart({"KBS__SERVER__PUBLIC_URL": "https://kbs.example"})
    document = broker.call("GET", "/.well-known/openid-configuration").json
    assert document["issuer"] == "https://kbs.example"
    assert document["jwks_uri"] == "https://kbs.example/.well-known/jwks.json"
    claims = broker.guest().attest().split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"] == "https://kbs.example"


def test_health_says_nothing_and_readiness_names_what_is_unsafe(standing: BrokerUnderTest) -> None:
    health = standing.call("GET", "/healthz")
    assert (health.status, health.body) == (200, b"")
    assert standing.call("GET", "/readyz").json == {"ready": True, "insecure": ["attestation.insecure_sample"]}
