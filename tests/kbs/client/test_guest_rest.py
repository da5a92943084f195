"""The REST server of a software guest, against a whole broker, and what it refuses."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flask.testing import FlaskClient

from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.guest import GuestClient
from kbs.client.guest_rest import SoftwareGuest, create_app
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol.jwe import open_sealed
from kbs.protocol.tee import Tee
from tests.fakes.broker import BrokerUnderTest, Edge, bearer
from tests.fakes.shared_modules import shared_modules
from tests.protocol.every_tee import House, claims_of

__all__ = ["shared_modules"]
RSA = TeeKeyPair.generate(KeyKind.RSA_OAEP_256)
EVENT = {"domain": "example.org", "operation": "Deploy", "content": '{"release":"7", "by":"ann"}'}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Iterator[BrokerUnderTest]:
    made = BrokerUnderTest(tmp_path_factory.mktemp("broker") / "data", Edge.FLASK)  # it may be asked by many threads
    made.put_secret(value=b"a secret \x00\xff")
    made.approve_sample()
    made.use_policy("sample-demo")
    yield made
    made.close()


def sample_guest(broker: BrokerUnderTest, attester: SampleAttester | None = None, **more: Any) -> SoftwareGuest:
    def connect(machine: Any) -> Any:
        return broker.guest(attester=machine, **{"key": None, **more})

    return SoftwareGuest("sample", attester or SampleAttester(), connect)


@pytest.fixture(scope="module")
def everything(broker: BrokerUnderTest) -> FlaskClient:
    return create_app(sample_guest(broker), "all").test_client()


def test_a_resource(everything: FlaskClient) -> None:
    answer = everything.get("/cdh/resource/default/key/1")
    assert (answer.status_code, answer.data) == (200, b"a secret \x00\xff")
    assert answer.content_type == "application/octet-stream"


def test_every_resource_is_an_attestation_with_a_key_of_its_own(
    everything: FlaskClient, broker: BrokerUnderTest
) -> None:
    before = len(broker.audit_records())
    for _ in range(3):
        everything.get("/cdh/resource/default/key/1")
    records = broker.audit_records()[before:]
    assert [record["kind"] for record in records] == ["evidence.accepted", "release.granted"] * 3
    assert len({record["key"] for record in records}) == 3


@pytest.mark.parametrize("key", [None, RSA], ids=["EC", "RSA"])
def test_a_token_and_its_key_open_the_door(broker: BrokerUnderTest, key: TeeKeyPair | None) -> None:
    client = create_app(sample_guest(broker, key=key), "attestation").test_client()
    answer = client.get("/aa/token?token_type=kbs")
    assert (answer.status_code, answer.content_type) == (200, "application/octet-stream")
    found = json.loads(answer.data)
    assert found.keys() == {"token", "tee_keypair"}
    kind = "RSA PRIVATE KEY" if key else "PRIVATE KEY"
    assert found["tee_keypair"].startswith(f"-----BEGIN {kind}-----\n")
    private: Any = load_pem_private_key(found["tee_keypair"].encode(), None)
    sealed = broker.call("GET", "/kbs/v0/resource/default/key/1", [bearer(found["token"])])
    assert open_sealed(private, sealed.body) == b"a secret \x00\xff"


def test_evidence_over_any_octets(everything: FlaskClient) -> None:
    raw = bytes(range(64))
    encoded = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    for query, octets in (
        ("runtime_data=hello%20there", b"hello there"), ("runtime_data=", b""), ("runtime_data=%C3%BC", "ü".encode()),
        (f"runtime_data={encoded}&encoding=base64", raw), ("runtime_data=+a", b" a"),
    ):  # fmt: skip
        answer = everything.get(f"/aa/evidence?{query}")
        assert answer.status_code == 200
        assert base64.b64decode(json.loads(answer.data)["report_data"]) == octets
        assert everything.get(f"/aa/additional-evidence?{query}").data == b""


def test_info(everything: FlaskClient) -> None:
    found = everything.get("/info").get_json()
    assert found.keys() == {"version", "tee", "additional_tees", "feature"}
    assert (found["tee"], found["additional_tees"], found["feature"]) == ("sample", [], "all")


RESOURCE, TOKEN = "/cdh/resource/default/key/1", "/aa/token?token_type=kbs"
ATTESTATION = (TOKEN, "/aa/evidence?runtime_data=x", "/aa/additional-evidence?runtime_data=x")


@pytest.mark.parametrize("features", ["resource", "attestation", "all"])
def test_features(broker: BrokerUnderTest, features: str) -> None:
    client = create_app(sample_guest(broker), features).test_client()
    assert client.get("/info").get_json()["feature"] == features
    for path in (RESOURCE, *ATTESTATION):
        is_there = features == "all" or (features == "resource") == (path == RESOURCE)
        assert client.get(path).status_code == (200 if is_there else 404), path
    assert client.post("/aa/aael", json=EVENT).status_code == (404 if features == "resource" else 500)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/cdh/resource/default/key/2", "ResourceNotFound"),
        ("/cdh/resource/default/key", "ResourceNotFound"),
        ("/cdh/resource/a/b/c/d", "ResourceNotFound"),
        ("/cdh/resource/default/%2e%2e/1", "no segment `.` or `..`"),
        ("/aa/token", "only `kbs`"),
        ("/aa/token?token_type=coco_as", "only `kbs`"),
        ("/aa/evidence", "runtime_data is missing"),
        (f"/aa/evidence?runtime_data={'x' * 65}", "65 octets"),
        ("/aa/evidence?runtime_data=AA==&encoding=base64", "base64url"),
        ("/aa/evidence?runtime_data=a%2Bb&encoding=base64", "base64url"),
        ("/aa/evidence?runtime_data=AA&encoding=hex", "URL-safe"),
        ("/aa/additional-evidence", "runtime_data is missing"),
    ],
    ids=range(12),
)
def test_errors_are_500_with_a_text_that_says_why(everything: FlaskClient, path: str, reason: str) -> None:
    answer = everything.get(path)
    assert answer.status_code == 500
    assert answer.content_type == "text/plain; charset=utf-8"
    assert reason in answer.text


def test_a_refusal_names_the_decision_and_costs_one_attestation(broker: BrokerUnderTest) -> None:
    client = create_app(sample_guest(broker, SampleAttester(launch_digest="0badc0de")), "all").test_client()
    before = len(broker.audit_records())
    text = client.get(RESOURCE).text
    records = broker.audit_records()[before:]
    assert [record["kind"] for record in records] == ["evidence.accepted", "release.denied"]
    assert text.startswith("403 PolicyDeny: Access denied by policy")
    assert text.endswith(f"\ntry: kbs explain {records[-1]['decision']}\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", RESOURCE, 405), ("PUT", TOKEN, 405), ("GET", "/aa/aael", 405), ("GET", "/", 404),
        ("GET", "/cdh/resource/", 404), ("GET", "/kbs/v0/auth", 404), ("GET", "/static/x", 404),
    ],
    ids=range(7),
)  # fmt: skip
def test_other_paths_and_methods(everything: FlaskClient, method: str, path: str, status: int) -> None:
    answer = everything.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "given",
    [
        {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}, {"environ_base": {"REMOTE_ADDR": "::ffff:10.0.0.1"}},
        {"environ_base": {"REMOTE_ADDR": ""}}, {"headers": {"Host": "evil.example:8006"}},
        {"headers": {"Host": "127.0.0.1.evil.example"}}, {"headers": {"Host": "192.0.2.7"}},
        {"headers": {"Origin": "https://evil.example"}}, {"headers": {"Origin": "null"}}, {"headers": {"Host": ""}},
    ],
    ids=range(9),
)  # fmt: skip
def test_strangers_and_web_pages_get_403(everything: FlaskClient, given: dict[str, Any]) -> None:
    for path in (RESOURCE, TOKEN, "/info", "/nowhere"):
        answer = everything.get(path, **given)
        assert (answer.status_code, b"secret" in answer.data) == (403, False)


@pytest.mark.parametrize("host", ["127.0.0.1:8006", "localhost:8006", "[::1]:8006", "127.0.0.1"])
def test_the_names_of_this_machine(everything: FlaskClient, host: str) -> None:
    for peer in ("127.0.0.1", "::1"):
        answer = everything.get("/info", headers={"Host": host}, environ_base={"REMOTE_ADDR": peer})
        assert answer.status_code == 200


# --- event log --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Iterator[House]:
    made = House.built(tmp_path_factory.mktemp("house") / "data", Tee.TDX)
    yield made
    made.broker.close()


def runtime_events(house: House, guest: SoftwareGuest) -> list[Any]:
    evidence = claims_of(guest.token("kbs")["token"])["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    logged = evidence["tdx"]["uefi_event_logs"]
    return [entry["details"]["data"] for entry in logged if entry["details"].get("unicode_name") == "AAEL"]


def td(house: House) -> SoftwareGuest:
    def connect(machine: Any) -> Any:
        return house.broker.guest(key=None, tee="tdx", attester=machine)

    return SoftwareGuest("tdx", SoftwareTdx(house.root), connect)


def test_events_show_in_later_evidence_which_still_verifies(house: House) -> None:
    guest = td(house)
    client = create_app(guest, "all").test_client()
    assert runtime_events(house, guest) == []
    for number in range(2):
        answer = client.post("/aa/aael", data=json.dumps({**EVENT, "operation": f"Deploy{number}"}))
        assert (answer.status_code, answer.data) == (200, b"")
    found = runtime_events(house, guest)
    assert [event["operation"] for event in found] == ["Deploy0", "Deploy1"]
    assert found[0]["content"] == {"release": "7", "by": "ann"}
    assert runtime_events(house, td(house)) == []  # another guest's log is its own


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b"{", json.dumps({"domain": "d", "operation": "o"}).encode(),
        json.dumps({**EVENT, "domain": ""}).encode(), json.dumps({**EVENT, "domain": "a b"}).encode(),
        json.dumps({**EVENT, "operation": "a\tb"}).encode(), json.dumps({**EVENT, "operation": "a\u00a0b"}).encode(),
        json.dumps({**EVENT, "content": "a\nb"}).encode(), json.dumps({**EVENT, "content": "a\u0000"}).encode(),
        json.dumps({**EVENT, "content": {}}).encode(), json.dumps({**EVENT, "domain": 7}).encode(),
    ],
    ids=range(14),
)  # fmt: skip
def test_events_that_are_none_leave_the_log_as_it_is(house: House, body: bytes) -> None:
    machine = SoftwareTdx(house.root)
    client = create_app(SoftwareGuest("tdx", machine, lambda _: pytest.fail("asked")), "all").test_client()
    before = machine.evidence_for(b"x")["cc_eventlog"]
    answer = client.post("/aa/aael", data=body)
    assert answer.status_code == 500
    assert len(answer.text) > 10
    assert machine.evidence_for(b"x")["cc_eventlog"] == before


def test_the_log_and_bodies_have_an_end(house: House) -> None:
    machine = SoftwareTdx(house.root)
    client = create_app(SoftwareGuest("tdx", machine, lambda _: pytest.fail("asked")), "all").test_client()
    machine.log.events *= 5000 // len(machine.log.events) + 1
    assert "the log has 5000 events" in client.post("/aa/aael", data=json.dumps(EVENT)).text
    assert client.post("/aa/aael", data=b" " * ((1 << 20) + 1)).status_code == 413


def test_where_there_is_no_register_that_is_said(everything: FlaskClient) -> None:
    answer = everything.post("/aa/aael", data=json.dumps(EVENT))
    assert (answer.status_code, "no register for run-time events; tdx has" in answer.text) == (500, True)


def test_log_and_registers_agree_whoever_asks_meanwhile(house: House) -> None:
    guest = td(house)
    stop = threading.Event()

    def extend() -> None:
        for number in range(200):
            if not stop.is_set():
                guest.log_event("d", "o", str(number))

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(extend)
        made: list[Any] = [guest.evidence(b"x") for _ in range(5)]
        stop.set()
        working.result()
    fresh = SoftwareTdx(house.root)
    for each in made:
        log = base64.b64decode(each["cc_eventlog"])
        fresh.log.events = fresh.log.events[: len(SoftwareTdx(house.root).log.events)]
        for number in range(log.count(b"LEAA")):
            fresh.log.runtime(4, "d", "o", str(number))
        assert fresh.log.rtmrs()[3] in base64.b64decode(each["quote"])


def test_a_td_shows_its_runtime_data(house: House) -> None:
    client = create_app(td(house), "all").test_client()
    answer = client.get(f"/aa/evidence?runtime_data={quote('hello')}")
    assert b"hello" + bytes(59) in base64.b64decode(json.loads(answer.data)["quote"])


def test_a_tee_that_answers_challenges_alone_says_so(house: House) -> None:
    class Asked(SampleAttester):
        def evidence_for_challenge(self, challenge: str, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            raise AssertionError

    guest = SoftwareGuest("se", Asked(), lambda _: pytest.fail("asked"))
    assert "answers the challenge of a broker" in create_app(guest, "all").test_client().get(ATTESTATION[1]).text


def test_a_broker_that_does_not_answer() -> None:
    def nobody(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def connect(machine: Any) -> GuestClient:
        return GuestClient("http://127.0.0.1:9", attester=machine, transport=httpx.MockTransport(nobody))

    client = create_app(SoftwareGuest("sample", SampleAttester(), connect), "all").test_client()
    for path in (RESOURCE, TOKEN):
        answer = client.get(path)
        assert (answer.status_code, "no answer from 127.0.0.1" in answer.text) == (500, True)
