"""What each policy engine makes of each fault: one outcome and one HTTP status, as docs/policies/faults.md says.

Every cell of that table is tried here, and the table has every fault that is tried.
"""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import wasmtime

from kbs.errors import AccessDenied, KbsError
from kbs.policy.compile import Compiler
from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.opa import OpaEngine
from kbs.policy.opa_link import OpaLink, OpaServerSettings
from kbs.policy.shipped import Shipped
from kbs.policy.store import PolicyStore
from kbs.policy.wasm import WasmEngine
from kbs.storage.memory import MemoryStore
from kbs.web.problems import problem_for
from tests.kbs.policy.support import NOW, REQUEST, document, snapshot
from tests.opa_binary import start_opa
from tests.probe_policies import probe

TABLE: Final = Path(__file__).parents[2] / "docs/policies/faults.md"
RESOURCE, EVIDENCE = probe(PolicyKind.RESOURCE), probe(PolicyKind.EVIDENCE)
GRANTED, IMPOSSIBLE, UNLIMITED = "granted", "cannot happen", "no limit"
YES = {"answer": True}
_SHORT: Final = 0.4  # seconds for an answer of a server that is slow
_LATE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
_LIE: Final = b'{"result": {"value": {"allow": true}}}'
_WRONG: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_LIE), _LIE)


def of_error(err: KbsError) -> str:
    return f"{problem_for(err).status} `{err.reason}`"


def outcome(ask: Callable[[], bool]) -> str:
    """What a caller sees of a question."""
    try:
        return GRANTED if ask() else of_error(AccessDenied())
    except KbsError as err:
        return of_error(err)


@dataclass
class Bench:
    """One engine with what a fault needs."""

    engine: PolicyEngine
    opa: Path | None = None
    folder: Path | None = None
    server: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        assert self.folder is not None
        return self.folder / "s"

    def allow(self, claims: Any = YES, policy: Policy = RESOURCE) -> str:
        return outcome(lambda: self.engine.authorize(policy, document(claims), REQUEST))

    def appraise(self, claims: Any) -> str:
        good = {"hardware": 2}
        return outcome(
            lambda: self.engine.appraise(EVIDENCE, document(claims), snapshot()).trust_claims == good,
        )

    def hurry(self, path: Path | None = None) -> None:
        """From now on answers must come soon, from another server where one is named."""
        if isinstance(self.engine, OpaEngine):
            self.engine._link = OpaLink(OpaServerSettings(socket=path or self.socket, timeout=_SHORT))


def damaged(bench: Bench) -> str:
    text = "package policy\n\nallow if {"
    return bench.allow(policy=Policy(PolicyKind.RESOURCE, text, hashlib.sha256(b"x").hexdigest(), b"\0asm", "test"))


def unknown(bench: Bench) -> str:
    policies = PolicyStore(MemoryStore(), Compiler(None, lambda: 0), Shipped.load())
    return outcome(lambda: bench.engine.authorize(policies.active(PolicyKind.RESOURCE, "none"), b"{}", REQUEST))


def deadline(bench: Bench) -> str:
    bench.allow()
    bench.hurry()
    return bench.allow({"bomb": 1_000_000_000})


def memory(bench: Bench) -> str:
    """A text of 100 MiB."""
    answer = bench.appraise({"trust_claims": {}, "bomb": "text", "text": "x" * 524})
    assert answer != GRANTED
    return UNLIMITED if isinstance(bench.engine, OpaEngine) else answer


def down(bench: Bench) -> str:
    if bench.server is None:
        return IMPOSSIBLE
    assert bench.allow() == GRANTED
    bench.server.kill()
    bench.server.wait()
    return bench.allow()


def restarted(bench: Bench) -> str:
    if bench.server is None:
        return IMPOSSIBLE
    down(bench)
    assert bench.opa is not None
    bench.server = start_opa(bench.opa, bench.socket)
    return bench.allow()


def answering(bench: Bench, octets: bytes) -> str:
    """A server that says always the same, then nothing."""
    if bench.folder is None:
        return IMPOSSIBLE
    path, done = bench.folder / "other", threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            connection.recv(1 << 20)
            connection.sendall(octets)

    connections: list[socket.socket] = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    bench.hurry(path)
    found = bench.allow()
    done.set()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for each in (listener, *connections):
        each.close()
    return found


def resting(bench: Bench) -> str:
    """After five failures in a row the server is not asked."""
    if bench.folder is None:
        return IMPOSSIBLE
    bench.hurry(bench.folder / "none")
    for _ in range(5):
        bench.allow()
    return bench.allow()


def no_code_pages(bench: Bench) -> str:
    """A system that forbids pages that are writable and executable (`MemoryDenyWriteExecute`)."""
    if not isinstance(bench.engine, WasmEngine):
        return IMPOSSIBLE

    def refused(*_: Any) -> None:
        raise wasmtime.WasmtimeError("mprotect: permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wasmtime, "Module", refused)
        return bench.allow(policy=replace(RESOURCE, digest="elsewhere", text=RESOURCE.text + "\n# elsewhere\n"))


FAULTS: Final[dict[str, Callable[[Bench], str]]] = {
    "none: `allow` is true": lambda bench: bench.allow(),
    "none: `trust_claims` are integers": lambda bench: bench.appraise({"trust_claims": {"hardware": 2}}),
    "`allow` is false": lambda bench: bench.allow({"answer": False}),
    "`allow` is undefined": lambda bench: bench.allow({}),
    "`allow` is no boolean": lambda bench: bench.allow({"answer": "true"}),
    "two rules for `allow` disagree": lambda bench: bench.allow({"answer": True, "conflict": True}),
    "a function fails on the way to `allow`": lambda bench: bench.allow({"answer": True, "bomb": "no number"}),
    "claims that are no object": lambda bench: bench.allow([]),
    "`trust_claims` are undefined": lambda bench: bench.appraise({}),
    "`trust_claims` are no object": lambda bench: bench.appraise({"trust_claims": [2]}),
    "a trust claim is no integer": lambda bench: bench.appraise({"trust_claims": {"hardware": "2"}}),
    "a trust claim is out of range": lambda bench: bench.appraise({"trust_claims": {"hardware": 128}}),
    "a trust claim that nobody knows": lambda bench: bench.appraise({"trust_claims": {"hardness": 2}}),
    "two rules for `trust_claims` disagree": lambda bench: bench.appraise(
        {"trust_claims": {"hardware": 2}, "conflict": True}
    ),
    "`extensions` of another form": lambda bench: bench.appraise({"trust_claims": {"hardware": 2}, "extensions": {}}),
    "a policy that goes on for ever": deadline,
    "a policy that wants 100 MiB": memory,
    "no policy under that id": unknown,
    "a policy of the other kind": lambda bench: bench.allow(policy=EVIDENCE),
    "a damaged module, or text": damaged,
    "a system without pages for code": no_code_pages,
    "the server is down": down,
    "the server is slow": lambda bench: answering(bench, _LATE),
    "the server says something else": lambda bench: answering(bench, _WRONG),
    "the server failed five times in a row": resting,
    "the server was restarted": restarted,
}
"""Each fault, and what makes it. The order is that of the table."""


@pytest.fixture(scope="module")
def wasm() -> Iterator[Bench]:
    engine = WasmEngine(lambda: NOW)
    yield Bench(engine)
    engine.close()


@pytest.fixture(scope="module")
def shared(opa: Path) -> Iterator[Bench]:
    """An OPA server for what does it no harm."""
    with tempfile.TemporaryDirectory(prefix="opa-") as name:
        folder = Path(name)
        server = start_opa(opa, folder / "s")
        yield Bench(OpaEngine(OpaLink(OpaServerSettings(socket=folder / "s", timeout=10))), opa, folder, server)
        server.kill()
        server.wait()


@pytest.fixture
def killed(opa: Path) -> Iterator[Bench]:
    """One for the rest."""
    with tempfile.TemporaryDirectory(prefix="opa-") as name:
        folder = Path(name)
        bench = Bench(OpaEngine(OpaLink(OpaServerSettings(socket=folder / "s", timeout=10))), opa, folder)
        bench.server = start_opa(opa, folder / "s")
        yield bench
        bench.server.kill()
        bench.server.wait()


_HARMFUL: Final = frozenset({deadline, down, restarted, resting})


def rows() -> dict[str, tuple[str, str]]:
    """Fault → what the document says of the two engines."""
    lines = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {fault: (wasm, server) for fault, wasm, server in lines if fault != "fault"}


def test_the_table_has_every_fault() -> None:
    assert list(rows()) == list(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_in_process(wasm: Bench, fault: str) -> None:
    assert FAULTS[fault](wasm) == rows()[fault][0]


@pytest.mark.opa
@pytest.mark.parametrize("fault", FAULTS)
def test_opa_server(request: pytest.FixtureRequest, fault: str) -> None:
    harmful = FAULTS[fault] in _HARMFUL or "the server" in fault
    bench: Bench = request.getfixturevalue("killed" if harmful else "shared")
    assert FAULTS[fault](bench) == rows()[fault][1]


def test_only_no_fault_is_granted() -> None:
    granted = {fault for fault, row in rows().items() if GRANTED in row}
    assert granted == {*list(FAULTS)[:2], "the server was restarted"}
