"""Which provider the settings name, and a whole broker whose reference values are elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.references import reference_provider
from kbs.config import ReferenceSettings, parse
from kbs.errors import ConfigInvalid
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.sealed import SealedStore, SealingKeys
from rvps import client as rvps_client
from rvps.client import RemoteProvider
from rvps.server.directory import Directory, Token
from rvps.server.metrics import Metrics
from rvps.server.reception import Reception
from rvps.server.web import Request, Web
from tests.fakes.broker import BrokerUnderTest, Edge, StoppedClock, reference_message
from tests.protocol.expect import expect
from tests.rvps import memory_store

TOKEN = "t" * 43
URL = "https://rvps.example:50004"


def store() -> SealedStore:
    return SealedStore(MemoryStore(), SealingKeys([Secret(b"k" * 32)]))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"url": "http://rvps.example:1", "token_file": "t"}, "a token travels with it"),
        ({"url": "rvps.example", "token_file": "t"}, "a token travels with it"),
        ({"url": "https://", "token_file": "t"}, "a token travels with it"),
        ({"url": "https://[", "token_file": "t"}, "a token travels with it"),
        ({"url": "ftp://127.0.0.1", "token_file": "t"}, "a token travels with it"),
        ({"url": URL}, "needs references.token_file"),
        ({"url": URL, "token_file": "t", "publishers": "p.toml"}, "has its own"),
        ({"poll_seconds": 0}, "poll_seconds is at least 0.05"),
        ({"poll_seconds": 6, "max_age_seconds": 10}, "twice as much"),
        ({"poll": 1}, "poll"),
    ],
)
def test_settings_that_go_wrong_are_refused(section: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        parse({"references": section})


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
def test_an_address_that_keeps_the_token_is_taken(url: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    settings = parse({"references": {"url": url, "token_file": "token"}}).references
    provider = reference_provider(settings, tmp_path, store())
    assert isinstance(provider, RemoteProvider)
    provider.close()


@pytest.mark.parametrize(
    ("token", "words"), [(None, "No such file"), (b"short", "no token"), (b"\xff" * 50, "no token")]
)
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, token: bytes | None, words: str) -> None:
    if token is not None:
        (tmp_path / "token").write_bytes(token)
    with pytest.raises(ConfigInvalid, match=words):
        reference_provider(ReferenceSettings(url=URL, token_file=Path("token")), tmp_path, store())


def test_roots_that_do_not_load_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    settings = ReferenceSettings(url=URL, token_file=Path("token"), ca_file=Path("ca.pem"))
    with pytest.raises(ConfigInvalid, match=r"ca\.pem"):
        reference_provider(settings, tmp_path, store())


def test_publishers_of_the_embedded_provider_are_read_at_start(tmp_path: Path) -> None:
    settings = ReferenceSettings(publishers=Path("publishers.toml"))
    with pytest.raises(ConfigInvalid, match="no such file"):
        reference_provider(settings, tmp_path, store())
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(key)
    text = '[publishers.acme]\ntypes = ["dsse"]\nnamespaces = ["acme/"]\nkeys = ["key.pem"]\n'
    (tmp_path / "publishers.toml").write_text(text + "nonsense = 1\n")
    with pytest.raises(ConfigInvalid, match="nonsense"):
        reference_provider(settings, tmp_path, store())
    (tmp_path / "publishers.toml").write_text(text)
    assert not isinstance(reference_provider(settings, tmp_path, store()), RemoteProvider)


# --- a broker over a service -----------------------------------------------------------------------------------------


class Service:
    """The REST edge of a service behind a scripted network."""

    def __init__(self, clock: StoppedClock) -> None:
        self.down = False
        kept = memory_store.MemoryStore()
        provider = rvps_client.embedded(kept, conflict=memory_store.Conflict, unavailable=memory_store.Unavailable)
        self.web = Web(
            reception=Reception(provider, clock),
            directory=Directory(Path("/nowhere"), Token("a" * 43), Token(TOKEN)),
            clock=clock,
            metrics=Metrics([]),
            insecure=(),
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("nobody listens")
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self.web.answer(Request(request.method, request.url.raw_path.decode(), headers, request.read()))
        return httpx.Response(answer.status, headers=dict(answer.headers), stream=httpx.ByteStream(answer.body))


@pytest.fixture
def service_and_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, BrokerUnderTest]]:
    clock = StoppedClock()
    service = Service(clock)
    ticks: Callable[[], float] = lambda: clock().timestamp()  # noqa: E731 - the age of values is the broker's time here

    def remote(settings: rvps_client.RemoteSettings) -> RemoteProvider:
        return RemoteProvider(settings, transport=httpx.MockTransport(service), ticks=ticks)

    monkeypatch.setattr("kbs.attestation.references.remote", remote)
    (tmp_path / "token").write_text(TOKEN)
    settings = {
        "KBS__REFERENCES__URL": URL,
        "KBS__REFERENCES__TOKEN_FILE": str(tmp_path / "token"),
        "KBS__REFERENCES__POLL_SECONDS": "0.05",
    }
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK, settings=settings, clock=clock)
    yield service, broker
    broker.close()


def test_values_of_a_service_are_managed_through_the_broker(
    service_and_broker: tuple[Service, BrokerUnderTest],
) -> None:
    _, broker = service_and_broker
    assert broker.admin("POST", "reference-value", reference_message({"svn": ["1"]})).status == 200
    assert broker.admin("GET", "reference-value/svn").json == ["1"]
    (line,) = broker.admin("GET", "admin/reference-values").json
    assert line["issuer"].startswith("admin:admin#"), "the administrator's name, not the broker's"
    (status,) = broker.admin("GET", "admin/reference-values/statements").json
    assert broker.admin("GET", f"admin/reference-values/statements/{status['id']}").json == status
    why = broker.admin("GET", "admin/reference-values/why?name=svn&value=%5B%221%22%5D").json
    assert (why["matches"], why["delivered"]) == (True, ["1"])
    preview = broker.admin("POST", "admin/reference-values/dry-run", reference_message({"svn": ["2"]})).json
    assert [change["kind"] for change in preview["changes"]] == ["changed"]
    revoke = f"admin/reference-values/statements/{status['id']}/revoke"
    assert broker.admin("POST", revoke, b'{"reason":"stolen"}').json["state"] == "revoked"
    expect(broker.admin("GET", "reference-value/svn"), 404, "ResourceNotFound")
    expect(broker.admin("DELETE", "admin/reference-values/svn"), 404, "ResourceNotFound")
    bad = base64.b64encode(b"[]").decode()
    refused = broker.admin("POST", "reference-value", json.dumps({"type": "sample", "payload": bad}).encode())
    expect(refused, 422, "RvpsError")
    assert "sample payload" in refused.json["detail"]


def test_a_service_that_is_gone_for_too_long_is_503_and_never_yesterdays_values(
    service_and_broker: tuple[Service, BrokerUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, broker = service_and_broker
    broker.admin("POST", "reference-value", reference_message({"svn": ["1"]}))
    service.down = True
    broker.clock.advance(5)
    assert broker.admin("GET", "reference-value/svn").json == ["1"]
    expect(broker.admin("POST", "reference-value", reference_message({"svn": ["2"]})), 503, "DependencyUnavailable")
    broker.clock.advance(6)
    expect(broker.admin("GET", "reference-value/svn"), 503, "DependencyUnavailable")
    assert broker.admin("GET", "admin/status").json["references"] is None
    monkeypatch.setattr("kbs.app._WARM", ())  # no policy needs to be compiled for this
    broker.broker.warm()
    service.down = False
    provider = broker.broker.references
    assert isinstance(provider, RemoteProvider)
    provider._see_change()
    assert broker.admin("GET", "reference-value/svn").json == ["1"]
