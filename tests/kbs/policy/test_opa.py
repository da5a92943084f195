"""The OPA server engine when the server is missing, wrong, slow, restarted, or shared."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.opa import OpaEngine
from kbs.policy.opa_link import OpaLink, OpaServerSettings
from kbs.policy.rego_sources import modules
from kbs.policy.workbench import fixture_data
from tests.kbs.policy.support import REQUEST, document, snapshot
from tests.opa_binary import start_opa
from tests.probe_policies import probe

RESOURCE = probe(PolicyKind.RESOURCE)
EVIDENCE = probe(PolicyKind.EVIDENCE)
YES = document({"answer": True})


@pytest.fixture
def folder() -> Iterator[Path]:
    # Socket paths must be short.
    with tempfile.TemporaryDirectory(prefix="opa-") as name:
        yield Path(name)


def engine_at(path: Path, **options: float) -> OpaEngine:
    return OpaEngine(OpaLink(OpaServerSettings(socket=path, **options)))  # type: ignore[arg-type]


def resource(text: str) -> Policy:
    return Policy(PolicyKind.RESOURCE, text, hashlib.sha256(text.encode()).hexdigest(), None, "test")


@pytest.fixture
def server(folder: Path) -> Iterator[Callable[[bytes, float], Path]]:
    """Start a server that answers every connection with the same octets, after a pause per octet."""
    listener = socket.socket(socket.AF_UNIX)
    path = folder / "s"
    listener.bind(str(path))
    listener.listen(16)

    def start(answer: bytes, pause: float) -> Path:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            try:
                with connection:
                    connection.recv(1 << 20)
                    if pause:
                        head, _, body = answer.partition(b"\r\n\r\n")
                        connection.sendall(head + b"\r\n\r\n")
                        for octet in body:
                            time.sleep(pause)
                            connection.sendall(bytes([octet]))
                    else:
                        connection.sendall(answer)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield start
    listener.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


def test_no_server_is_unavailable(folder: Path) -> None:
    with pytest.raises(PolicyEngineUnavailable):
        engine_at(folder / "none").authorize(RESOURCE, YES, REQUEST)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        http(b""),
        http(b"true"),
        http(b"[]"),
        http(b"not json"),
        http(b'{"result": true}'),
        http(b'{"result": {"allow": true}}'),
        http(b'{"result": {"value": {"allow": true}}}'),
        http(b'{"result": {"value": {"allow": true}, "version": "v0"}}'),
        http(b'{"result": true, "allow": true}'),
        http(b'{"result": {"ast": {}}}'),
        http(b"{}", "500 Internal Server Error"),
        http(b'{"result": {"value": {"allow": true}, "version": "none"}}', "500 Internal Server Error"),
        http(b'{"result": {"value": {"allow": true}, "version": "none"}}', "404 Not Found"),
        http(b'{"result": {"value": {"allow": true}, "version": "none"}}', "302 Found"),
        http(b'{"result": {"value": {"allow": true}, "version": "none"}}')[:-10],
        http(b'{"result": "' + b"x" * (9 << 20) + b'"}'),
    ],
)
def test_wrong_answers_are_never_an_allow(server: Callable[[bytes, float], Path], answer: bytes) -> None:
    with pytest.raises((PolicyEngineUnavailable, PolicyBroken)):
        engine_at(server(answer, 0), timeout=2).authorize(RESOURCE, YES, REQUEST)


def test_a_dripping_answer_ends_at_the_deadline(server: Callable[[bytes, float], Path]) -> None:
    path = server(http(b" " * 1000), 0.05)
    start = time.monotonic()
    with pytest.raises(PolicyEngineUnavailable):
        engine_at(path, timeout=0.4).authorize(RESOURCE, YES, REQUEST)
    assert time.monotonic() - start < 20  # the whole answer would take 50


def test_a_server_that_fails_repeatedly_is_left_alone_and_tried_again(folder: Path) -> None:
    now = [0.0]
    tried = []
    link = OpaLink(OpaServerSettings(socket=folder / "none"), lambda: now[0])

    def refused() -> None:
        tried.append(1)
        raise ConnectionRefusedError("refused")

    link._connect = refused  # type: ignore[method-assign]
    for _ in range(20):
        with pytest.raises(PolicyEngineUnavailable):
            link.query("p", "r", {})
    assert len(tried) == 5
    now[0] += 6
    with pytest.raises(PolicyEngineUnavailable):
        link.query("p", "r", {})
    assert len(tried) == 6
    with pytest.raises(PolicyEngineUnavailable):
        link.query("p", "r", {})
    assert len(tried) == 6


@pytest.mark.parametrize("is_well", [True, False])
def test_a_policy_that_goes_on_is_told_from_a_server_that_does_not_answer(is_well: bool) -> None:
    """And others need not wait: what one policy does never has the server left alone."""

    class Client:
        def query_rule(self, *_: object) -> object:
            raise requests.ReadTimeout("late")

        def check_health(self) -> bool:
            return is_well

    link = OpaLink(OpaServerSettings())
    link._connect = Client  # type: ignore[method-assign]
    for turn in range(12):
        with pytest.raises(PolicyBroken if is_well else PolicyEngineUnavailable) as caught:
            link.query("p", "r", {})
        assert ("left alone" in str(caught.value.operator_detail)) is (not is_well and turn >= 5)


@pytest.mark.opa
def test_a_restarted_server_is_filled_again(opa: Path, folder: Path) -> None:
    path = folder / "s"
    engine = engine_at(path, timeout=10)
    asked = document({"trust_claims": {"hardware": 2}, "ask": "id"})
    for _ in range(2):
        running = start_opa(opa, path)
        try:
            assert engine.authorize(RESOURCE, YES, REQUEST) is True
            assert engine.appraise(EVIDENCE, asked, snapshot({"id": 1})).extensions == {"reference": 1}
        finally:
            running.kill()
            running.wait()
        with pytest.raises(PolicyEngineUnavailable):
            engine.authorize(RESOURCE, YES, REQUEST)


@pytest.mark.opa
def test_brokers_share_a_server_without_seeing_each_other(opa_socket: Path) -> None:
    one, other = engine_at(opa_socket, timeout=10), engine_at(opa_socket, timeout=10)
    yes, no = resource("package policy\nallow := true\n"), resource("package policy\nallow := false\n")
    for _ in range(3):
        assert one.authorize(yes, YES, REQUEST) is True
        assert other.authorize(no, YES, REQUEST) is False
        assert other.authorize(yes, YES, REQUEST) is True
        assert one.authorize(no, YES, REQUEST) is False


@pytest.mark.opa
def test_data_of_others_on_the_server_decides_nothing(opa_socket: Path) -> None:
    link = OpaLink(OpaServerSettings(socket=opa_socket, timeout=10))
    link.put_data("plugin", {"resource": True})
    link.put_data("shared", {"allow": True})
    link.put_policy("theirs", "package policy_of_theirs\nallow := true\n")
    engine = OpaEngine(link)
    for text in (
        "allow if data.shared.allow",
        "allow if data.policy_of_theirs.allow",
        'allow if data.plugin == {"resource": true}',
    ):
        assert engine.authorize(resource(f"package policy\n{text}\n"), YES, REQUEST) is False


@pytest.mark.opa
@pytest.mark.parametrize(
    "text",
    ["package policy\nallow if {", "package other\nallow := true\n", 'package policy\nallow if $"{data.x}" == "1"\n'],
)
def test_a_text_that_cannot_be_kept_apart_or_does_not_compile_is_broken(opa_socket: Path, text: str) -> None:
    with pytest.raises((PolicyBroken, PolicyEngineUnavailable)):
        engine_at(opa_socket, timeout=10).authorize(resource(text), YES, REQUEST)


@pytest.mark.opa
def test_many_policies_and_versions_are_tidied_up(opa_socket: Path) -> None:
    engine = engine_at(opa_socket, timeout=10)
    policy = dataclasses.replace(EVIDENCE, digest="tidy", text=f"{EVIDENCE.text}\n# tidy\n")
    asked = document({"trust_claims": {"hardware": 2}, "ask": "id"})
    used = set()
    for number in range(8):
        values = snapshot({"id": number}, version=f"tidy {number}")
        assert engine.appraise(policy, asked, values).extensions == {"reference": number}
        used |= {*engine._versions}
    kept = OpaLink(OpaServerSettings(socket=opa_socket))._connect().get_data(engine._values)["result"]
    assert used & kept.keys() == {*engine._versions}  # the server is shared, and so are the values on it
    assert (len(used), len(engine._versions)) == (8, 3)


@pytest.mark.opa
def test_a_server_that_lost_one_version_only_gets_it_again(opa_socket: Path) -> None:
    engine = engine_at(opa_socket, timeout=10)
    policy = dataclasses.replace(EVIDENCE, digest="lost")
    asked = document({"trust_claims": {"hardware": 2}, "ask": "id"})
    values = snapshot({"id": "kept"}, version="lost")
    assert engine.appraise(policy, asked, values).extensions == {"reference": "kept"}
    (root,) = engine._roots.values()
    OpaLink(OpaServerSettings(socket=opa_socket)).forget([], engine._values)
    assert engine.appraise(policy, asked, values).extensions == {"reference": "kept"}
    # Another process, tidying up, may remove the values after this one wrote that they are there.
    OpaLink(OpaServerSettings(socket=opa_socket)).forget([], f"{engine._values}/{engine._versions[-1]}")
    assert engine.appraise(policy, asked, values).extensions == {"reference": "kept"}
    # And somebody may have cleared away a policy, or the library under it.
    link = OpaLink(OpaServerSettings(socket=opa_socket))
    link.forget([f"{root.name}/{name}" for name in ("served", "policy", "asked")])
    assert engine.appraise(policy, asked, values).extensions == {"reference": "kept"}


@pytest.mark.opa
def test_a_policy_is_three_modules_whatever_library_it_uses(opa_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module has the server compile all that it holds; and values are sent once, not for each policy."""
    engine, sent = engine_at(opa_socket, timeout=10), list[str]()
    for name in ("put_policy", "put_data"):
        put = getattr(engine._link, name)

        def noted(path: str, what: object, put: Callable[[str, object], object] = put) -> object:
            sent.append(path)
            return put(path, what)

        monkeypatch.setattr(engine._link, name, noted)
    asked, values = document({"trust_claims": {"hardware": 2}, "ask": "id"}), snapshot({"id": 7}, version="once")
    for number in range(3):
        policy = dataclasses.replace(EVIDENCE, digest=f"m{number}", text=f"{EVIDENCE.text}\n# m{number}\n")
        assert engine.appraise(policy, asked, values).extensions == {"reference": 7}
    library = {name for name in sent if name.startswith(engine._library_root)}
    assert len(library) == len(engine._library) + 1
    assert len(sent) == len(library) + 3 * 3


def test_every_module_of_the_library_is_loaded() -> None:
    have = {*modules(PolicyKind.EVIDENCE), *modules(PolicyKind.RESOURCE)}
    assert {f"lib/{name}.rego" for name in OpaEngine(OpaLink(OpaServerSettings()))._library} == {
        name for name in have if "wrapper" not in name
    }


LIBRARY_WORDS = "import data.kbs.affirming\nallow if affirming.resource\n"


@pytest.mark.opa
@pytest.mark.parametrize(
    ("text", "allow"),
    [
        (LIBRARY_WORDS, True),
        ('allow if data.kbs["affirming"].resource\n', True),
        ('allow if data["kbs"]["affirming"].resource\n', True),
        ("import data.kbs.affirming as data_kbs\nallow if data_kbs.resource\n", True),
        ("allow if data[`kbs`].affirming.resource\n", None),
        ('import data.kbs\nallow if kbs["affirming"].resource\n', None),
        ("allow if some name; data.kbs[name].allow\n", None),
        ("allow if data.kbs.resource.verdict\n", None),
        ("allow if data.kbs.values\n", None),
    ],
    ids=range(9),
)
def test_the_library_is_found_in_every_spelling_or_the_policy_is_broken(
    opa_socket: Path, text: str, allow: bool | None
) -> None:
    token = document(fixture_data()["tokens"]["snp"]["good"])
    engine = engine_at(opa_socket, timeout=10)
    policy = resource(f"package policy\n\n{text}")
    if allow is None:
        with pytest.raises(PolicyBroken):
            engine.authorize(policy, token, REQUEST)
    else:
        assert engine.authorize(policy, token, REQUEST) is allow
        assert engine.authorize(policy, token, {**REQUEST, "plugin": "pkcs11"}) is False


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port


@pytest.mark.opa
@pytest.mark.server
@pytest.mark.enable_socket
def test_brokers_share_one_server_over_tcp_and_unix_socket(opa: Path, folder: Path) -> None:
    """Several brokers, their own reference values under the same name, asked at once: nobody gets another's answer."""
    path, port = folder / "s", free_port()
    server = start_opa(opa, path, also=f"127.0.0.1:{port}")
    try:
        engines = [
            OpaEngine(OpaLink(settings))
            for settings in (
                OpaServerSettings(socket=path, timeout=20),
                OpaServerSettings(port=port, timeout=20),
                OpaServerSettings(port=port, timeout=20),
            )
        ]
        wrong: list[str] = []

        def ask(number: int) -> None:
            asked = document({"trust_claims": {"hardware": number}, "ask": "id"})
            for turn in range(5):
                values = snapshot({"id": [number, turn % 2]}, version="same")
                verdict = engines[number].appraise(EVIDENCE, asked, values)
                if (verdict.trust_claims, verdict.extensions) != (
                    {"hardware": number},
                    {"reference": [number, turn % 2]},
                ):
                    wrong.append(f"{number} {turn} {verdict}")
                if engines[number].authorize(RESOURCE, document({"answer": number == 1}), REQUEST) != (number == 1):
                    wrong.append(f"{number} {turn} allow")

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(engines))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
    finally:
        server.kill()
        server.wait()
