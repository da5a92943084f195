"""Registries: images there and back, authentication, and everything a registry may do wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kbs.images import layout
from kbs.images import registry as registry_module
from kbs.images.errors import ImageError, LocationRefused, RegistryFailed
from kbs.images.locations import open_source, open_target, parse_location
from kbs.images.model import MAX_DOCUMENT
from kbs.images.registry_address import RegistryAddress
from kbs.images.registry_auth import read_challenge, read_credentials, read_token
from kbs.images.registry_client import RegistryOptions
from tests.fakes.oci_images import MANIFEST, Blobs, Layer, sha256, tar_of
from tests.fakes.registry import FakeRegistry
from tests.kbs.images.conftest import SHARED, Workshop, manifest_of

APP = "docker://registry.test/team/app:v1"
ENC = "docker://registry.test/team/app:enc"
LOGIN = {"registry.test": {"auth": base64.b64encode(b"user:word").decode()}}


@pytest.fixture
def pushed(work: Workshop) -> dict[str, Any]:
    """An image at `APP`; the descriptor of its manifest."""
    blobs = Blobs()
    root = blobs.image([SHARED, Layer(tar_of({"b": b"2"}), "")])
    work.registry.put("team/app", "v1", blobs.found, root)
    return root


def logged_in(work: Workshop, auths: Any = LOGIN) -> None:
    path = work.folder / "auth.json"
    path.write_text(json.dumps({"auths": auths}))
    work.options = RegistryOptions(auth_file=path, transport=work.registry)


def why(work: Workshop, source: str = APP, target: str | None = None) -> str:
    """Why an encryption was refused; its target holds nothing that has a name."""
    before = dict(work.registry.manifests)
    with pytest.raises(ImageError) as refused:
        work.encrypt(source, target or work.at("out"))
    work.nothing_at("out")
    assert work.registry.manifests == before
    return str(refused.value)


@pytest.mark.parametrize("auth", [None, "basic", "token"])
def test_there_and_back(auth: str | None, work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.auth = auth
    if auth is not None:
        logged_in(work)
    work.encrypt(APP, ENC)
    work.decrypt(ENC, work.at("back"))
    work.encrypt(f"docker://registry.test/team/app@{pushed['digest']}", work.at("enc"))
    before = json.loads(work.registry.manifests["team/app", "v1"][0])
    assert manifest_of(work.folder / "back")[0]["layers"] == before["layers"]
    assert work.registry.uploads == {}
    # its config was there already: only layers were uploaded, and the name came last
    puts = work.registry.sent("PUT")
    assert puts[-1] == "/v2/team/app/manifests/enc"
    assert len(puts) == 3
    for request in work.registry.requests:
        assert request.headers["Accept-Encoding"] == "identity"


def test_an_index_goes_children_first(work: Workshop) -> None:
    blobs = Blobs()
    entries: list[tuple[str | None, dict[str, Any]]] = [
        (f"linux/{each}", blobs.image([Layer(tar_of({"a": each.encode()}))], f"linux/{each}")) for each in ("x", "y")
    ]
    blobs.write(work.folder / "multi", blobs.index(entries))
    work.encrypt(work.at("multi"), ENC)
    puts = [path for path in work.registry.sent("PUT") if "/manifests/" in path]
    assert [path.rpartition("/")[2][:6] for path in puts] == ["sha256", "sha256", "enc"]
    work.decrypt(ENC, work.at("back"))


def test_layers_go_in_pieces(work: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CHUNK", 1000)
    monkeypatch.setattr(registry_module, "PIECE", 3500)
    source = work.layout("app", Layer(tar_of({"a": bytes(9000)}), ""))
    work.encrypt(source, ENC)

    def sizes() -> list[int]:
        found = [len(each.content) for each in work.registry.requests if each.method == "PATCH"]
        work.registry.requests.clear()
        return found

    assert sizes()[:6] == [*[4000] * 5, 480]
    work.registry.upload_headers = {"OCI-Chunk-Min-Length": "6500"}
    work.encrypt(source, ENC)
    assert sizes()[0] == 7000
    work.registry.upload_headers = {"OCI-Chunk-Min-Length": str(1 << 30)}
    assert "wants uploads in pieces" in why(work, source, ENC)


def test_a_token_that_ends_half_way_is_fetched_anew(work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.auth = "token"
    logged_in(work)
    ended = False

    def end(request: httpx.Request) -> None:
        nonlocal ended
        if request.method == "PATCH" and not ended:
            work.registry.tokens, ended = work.registry.tokens + 1, True

    work.registry.before = end
    work.encrypt(APP, ENC)
    assert ended


# --- what registries may do wrong -------------------------------------------------------------------------------------

Answer = Callable[[httpx.Request], httpx.Response | None]


def when(method: str, part: str, answer: Callable[[], httpx.Response]) -> Answer:
    return lambda request: answer() if request.method == method and part in request.url.path else None


def times_out(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow", request=request)


def resets(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("[Errno 104] Connection reset by peer", request=request)


class Broken(httpx.SyncByteStream):
    """A body that ends in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def no(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"errors": [{"code": code, "message": "m"}]})


def body(content: bytes, **headers: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, content=content, headers=headers)


WRONG: dict[str, tuple[Answer, str]] = {
    "no answer": (times_out, "no answer within 30 seconds"),
    "connection reset": (resets, "reset by peer"),
    "no such image": (when("GET", "/manifests/", lambda: httpx.Response(404)), "no such image: 404"),
    "an error with markup": (
        when("GET", "/manifests/", lambda: no(500, "A\x1b[2J")),
        "500 A\ufffd[2J: m",
    ),
    "an error without form": (when("GET", "/manifests/", lambda: httpx.Response(503, content=b"<html>")), "503"),
    "errors of another type": (when("GET", "/manifests/", lambda: httpx.Response(400, json={"errors": [1]})), "400"),
    "another manifest": (
        when("GET", "/manifests/", body(b'{"schemaVersion":2,"layers":[]}', **{"Docker-Content-Digest": "sha256:0"})),
        "another manifest",
    ),
    "a web page": (when("GET", "/manifests/", body(b"<html>")), "JSON"),
    "a huge manifest": (when("GET", "/manifests/", body(b" " * (MAX_DOCUMENT + 1))), "more than 4194304 bytes"),
    "repeated members": (when("GET", "/manifests/", body(b'{"layers":[],"layers":[]}')), "repeats a member"),
    "another media type": (
        when("GET", "/manifests/v1", body(b'{"schemaVersion":2,"layers":[]}', **{"Content-Type": MANIFEST.replace(
            "manifest", "index")})), "sent as",
    ),
    "a manifest cut short": (
        when("GET", "/manifests/", lambda: httpx.Response(200, stream=Broken())), "without sending complete",
    ),
    "a redirected manifest": (
        when("GET", "/manifests/", lambda: httpx.Response(307, headers={"Location": "https://other.test/"})),
        "a redirect where none belongs",
    ),
    "a blob cut short": (when("GET", "/blobs/", lambda: httpx.Response(200, stream=Broken())), "complete message"),
    "a short blob": (when("GET", "/blobs/", lambda: httpx.Response(200, stream=Pieces(b"x"))), "1 bytes, its"),
    "an endless blob": (when("GET", "/blobs/", lambda: httpx.Response(200, stream=Pieces(bytes(99999)))), "more than"),
    "another length": (when("GET", "/blobs/", body(b"xyz")), "the registry sends 3 bytes"),
    "another blob": (
        lambda request: None if "/blobs/" not in request.url.path else httpx.Response(
            200, stream=Pieces(bytes(len(SHARED.blob) if request.url.path.endswith(sha256(SHARED.blob)) else 200))),
        "its content has another digest|bytes, its descriptor names|more than",
    ),
    "a missing blob": (when("GET", "/blobs/", lambda: httpx.Response(404)), "404"),
    "a blob elsewhere, in clear": (
        when("GET", "/blobs/", lambda: httpx.Response(307, headers={"Location": "http://evil.test/x"})),
        "redirects to evil.test, and not over https",
    ),
    "a blob nowhere": (when("GET", "/blobs/", lambda: httpx.Response(307)), "a redirect to nowhere"),
    "a blob in circles": (
        when("GET", "/blobs/", lambda: httpx.Response(302, headers={"Location": "/v2/blobs/again"})),
        "more than 5 redirects",
    ),
    "unauthorized without a challenge": (when("GET", "/", lambda: httpx.Response(401)), "without saying how"),
    "basic without a login": (
        when("GET", "/", lambda: httpx.Response(401, headers={"WWW-Authenticate": "Basic"})), "name and a password",
    ),
    "a token service in clear": (
        when("GET", "/v2", lambda: httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="http://t.test/"'})),
        "not reached over https",
    ),
    "no token service": (
        when("GET", "/v2", lambda: httpx.Response(401, headers={"WWW-Authenticate": "Bearer"})), "no token service",
    ),
    "a token service without a token": (
        lambda request: httpx.Response(200, json={"token": "a b\r\nX: y"}) if request.url.host == "t.test"
        else httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="https://t.test/"'}),
        "holds no token",
    ),
    "401 for ever": (
        lambda request: httpx.Response(200, json={"token": "t"}) if request.url.host == "t.test"
        else httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="https://t.test/"'}),
        "the credentials are not accepted",
    ),
}  # fmt: skip


class Pieces(httpx.SyncByteStream):
    """A body of unknown length."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __iter__(self) -> Iterator[bytes]:
        yield self._raw


@pytest.mark.parametrize("name", [*WRONG])
def test_a_source_that_does_wrong(name: str, work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.before, text = WRONG[name]
    found = why(work)
    assert any(each in found for each in text.split("|")), found
    assert len(work.registry.requests) < 20


BAD_TARGET: dict[str, tuple[Answer, str]] = {
    "refuses uploads": (when("POST", "/uploads/", lambda: httpx.Response(403)), "no upload: 403"),
    "names no place": (when("POST", "/uploads/", lambda: httpx.Response(202)), "without a place"),
    "sends uploads elsewhere": (
        when("POST", "/uploads/", lambda: httpx.Response(202, headers={"Location": "https://evil.test/up"})),
        "sends uploads to evil.test",
    ),
    "redirects uploads": (
        when("POST", "/uploads/", lambda: httpx.Response(307, headers={"Location": "https://evil.test/up"})),
        "a redirect where none belongs",
    ),
    "breaks off": (when("PATCH", "/uploads/", lambda: httpx.Response(500)), "the upload broke off: 500"),
    "is cut off": (lambda request: resets(request) if request.method == "PATCH" else None, "reset by peer"),
    "refuses a blob": (when("PUT", "/uploads/", lambda: httpx.Response(400)), "the blob was not accepted"),
    "stores another blob": (
        when("PUT", "/uploads/", lambda: httpx.Response(201, headers={"Docker-Content-Digest": "sha256:0"})),
        "stored other bytes",
    ),
    "knows no such media type": (
        when("PUT", "/manifests/", lambda: no(400, "MANIFEST_INVALID")),
        "the manifest was not accepted: 400 MANIFEST_INVALID",
    ),
    "stores another manifest": (
        when("PUT", "/manifests/", lambda: httpx.Response(201, headers={"Docker-Content-Digest": "sha256:0"})),
        "stored other bytes",
    ),
    "forgets the manifest": (when("PUT", "/manifests/", lambda: httpx.Response(201)), "no such image"),
}


@pytest.mark.parametrize("name", [*BAD_TARGET])
def test_a_target_that_does_wrong(name: str, work: Workshop, app: str) -> None:
    work.registry.before, text = BAD_TARGET[name]
    assert text in why(work, app, ENC)


def test_a_source_that_lies_leaves_no_upload(work: Workshop, pushed: dict[str, Any]) -> None:
    digest = sha256(SHARED.blob)
    work.registry.blobs["team/app", digest] = bytes(len(SHARED.blob))
    assert "another digest" in why(work, APP, ENC)
    assert work.registry.uploads == {}
    assert len(work.registry.blobs) == len({*work.registry.blobs})


def test_credentials_do_not_follow_a_redirect(work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.auth = "token"
    logged_in(work)
    seen: list[httpx.Request] = []

    def store(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "store.test":
            seen.append(request)
            return httpx.Response(200, content=work.registry.blobs["team/app", request.url.path[1:]])
        if request.method == "GET" and "/blobs/" in request.url.path and "Authorization" in request.headers:
            place = f"https://store.test/{request.url.path.rpartition('/')[2]}?signature=x"
            return httpx.Response(307, headers={"Location": place})
        return None

    work.registry.before = store
    work.encrypt(APP, work.at("enc"))
    assert len(seen) == 3
    assert all("Authorization" not in request.headers for request in seen)


def test_a_proxy_that_ends_tls_is_understood(work: Workshop, app: str) -> None:
    def location(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            number = str(len(work.registry.uploads))
            work.registry.uploads[number] = bytearray()
            place = f"http://registry.test:5000/v2/team/app/blobs/uploads/{number}"
            return httpx.Response(202, headers={"Location": place})
        return None

    work.registry.before = location
    work.encrypt(app, ENC)
    assert {(each.url.scheme, each.url.port) for each in work.registry.requests} == {("https", None)}


def test_a_slow_registry_is_given_up(work: Workshop, pushed: dict[str, Any]) -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 40
        return now

    work.registry.before = when("GET", "/blobs/", lambda: httpx.Response(200, stream=Trickle()))
    work.options = RegistryOptions(transport=work.registry, monotonic=monotonic)
    assert "given up" in why(work)


class Trickle(httpx.SyncByteStream):
    """A byte at a time."""

    def __iter__(self) -> Iterator[bytes]:
        yield from [b"x"] * 1000


def test_plain_http_is_for_this_machine() -> None:
    options = RegistryOptions(insecure_http=True, transport=FakeRegistry())
    with pytest.raises(LocationRefused, match="others need TLS"):
        open_source(parse_location(APP), options)
    source = open_source(parse_location("docker://127.0.0.1:5000/a"), options)
    with pytest.raises(RegistryFailed, match="no such image"):
        source.root()
    source.close()


def test_a_target_is_no_digest() -> None:
    with pytest.raises(LocationRefused, match="a tag"):
        open_target(parse_location(f"docker://h/a@{'sha256:' + 'a' * 64}"), RegistryOptions())


# --- auth files, challenges, tokens -----------------------------------------------------------------------------------

ADDRESS = RegistryAddress("registry.test", "team/app", "v1")


def credentials(folder: Path, document: Any, address: RegistryAddress = ADDRESS) -> str | None:
    path = folder / "auth.json"
    path.write_text(json.dumps(document))
    found = read_credentials(path, address)
    secret = found.basic or found.identity
    return None if secret is None else secret.reveal().decode()


def entry(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_the_most_specific_entry_is_taken(tmp_path: Path) -> None:
    auths = {"registry.test": entry("a:1"), "registry.test/team": entry("b:2"), "registry.test/team/ap": entry("c:3")}
    assert credentials(tmp_path, {"auths": auths}) == "b:2"
    assert credentials(tmp_path, {"auths": auths}, RegistryAddress("registry.test", "x", "y")) == "a:1"
    assert credentials(tmp_path, {"auths": auths}, RegistryAddress("registry.test:5", "x", "y")) is None
    assert credentials(tmp_path, {}) is None
    hub = RegistryAddress("docker.io", "library/alpine", "latest")
    assert credentials(tmp_path, {"auths": {"https://index.docker.io/v1/": entry("h:4")}}, hub) == "h:4"
    assert credentials(tmp_path, {"auths": {"registry.test": {"identitytoken": "t", **entry("a:1")}}}) == "t"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "no auth file"),
        ({"auths": []}, "no auth file"),
        ({"auths": {"registry.test": 1}}, "no object"),
        ({"auths": {"registry.test": {}}}, "has no `auth`"),
        ({"auths": {"registry.test": {"auth": "c2VjcmV0"}}}, "has no `auth`"),
        ({"auths": {"registry.test": {"auth": "*secret*"}}}, "has no `auth`"),
        ({"credHelpers": {"registry.test": "pass"}}, "credential helper"),
    ],
    ids=["list", "auths", "entry", "empty", "no colon", "no base64", "helper"],
)
def test_auth_files_that_do_not_serve(document: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryFailed, match=text) as refused:
        credentials(tmp_path, document)
    assert "secret" not in str(refused.value)


def test_auth_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RegistryFailed, match="No such file"):
        read_credentials(tmp_path / "absent", ADDRESS)
    (tmp_path / "auth.json").write_text("user:word")
    with pytest.raises(RegistryFailed, match="no auth file"):
        read_credentials(tmp_path / "auth.json", ADDRESS)


def test_a_refresh_token_is_exchanged(work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.auth = "token"
    logged_in(work, {"registry.test": {"identitytoken": "refresh"}})
    forms: list[bytes] = []

    def exchange(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/token":
            return None
        forms.append(request.content)
        work.registry.tokens = 7
        return httpx.Response(200, json={"access_token": "token-7"})

    work.registry.before = exchange
    work.encrypt(APP, work.at("enc"))
    assert b"refresh_token=refresh" in forms[0]
    assert b"scope=repository%3Ateam%2Fapp%3Apull" in forms[0]


def test_a_login_that_is_refused_says_what_to_do(work: Workshop, pushed: dict[str, Any]) -> None:
    work.registry.auth = "token"
    logged_in(work, {"registry.test": entry("user:wrong")})
    with pytest.raises(RegistryFailed) as refused:
        work.encrypt(APP, work.at("enc"))
    assert "who are you" in str(refused.value)
    assert "--auth-file" in str(refused.value.next_step)
    assert "wrong" not in str(refused.value)


def test_challenges() -> None:
    found = read_challenge(['Basic realm="b"', 'Bearer realm="https://a/\\"x",service=s,scope="p,q"'])
    assert found is not None
    assert (found.scheme, found.parameters["service"], found.parameters["scope"]) == ("bearer", "s", "p,q")
    assert read_challenge(["Negotiate"]) is None
    assert read_challenge([]) is None


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"token":1}', b'{"token":"a\\nb"}', b'{"access_token":""}'])
def test_answers_without_a_token(raw: bytes) -> None:
    with pytest.raises(RegistryFailed):
        read_token(raw)


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(RegistryFailed, match="PEM"):
        open_source(parse_location(APP), RegistryOptions(ca_file=tmp_path / "ca.pem"))
