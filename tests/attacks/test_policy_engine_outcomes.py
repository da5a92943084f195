"""Deny is deny (P-REL-7): every outcome of the policy engine, and a fault at every step of both requests.

What is released after a fault: nothing. What the guest meets: 403 for a no, 500 for what is broken here, 503 for what
may be well again later. Only a 503 gives the challenge back: the same body then succeeds once the fault is gone.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from kbs import app
from kbs.attestation.verifiers.snp.verifier import SnpVerifier
from kbs.audit.log import AuditLog
from kbs.errors import (
    EndorsementsUnavailable,
    KbsError,
    PolicyBroken,
    PolicyEngineUnavailable,
    ServerFault,
    StorageUnavailable,
)
from kbs.plugins.model import PluginAnswer
from kbs.plugins.resource import ResourcePlugin
from kbs.policy.engine import EvidenceVerdict
from kbs.protocol import jwe
from kbs.secret import Secret
from kbs.storage.handshakes import FileHandshakeStore
from kbs.storage.sqlite import SqliteStore
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.issuer import TokenIssuer
from kbs.web.cohort import Cohort
from rvps.errors import ProviderUnavailable
from tests.attacks.world import SECRET, Site, Worker, outcome
from tests.fakes.broker import Answer, Edge, Request, session

MARK = "f4ult: text that must stay here"
UNDEFINED = object()


@dataclass
class ScriptedEngine:
    """The real engine, but for what a test makes it say. A script is a value to return or an exception to raise."""

    inner: Any
    scripts: dict[str, Any] = field(default_factory=dict)
    name = "scripted"
    blocks = False

    def _run(self, method: str, *arguments: Any) -> Any:
        if method not in self.scripts:
            return getattr(self.inner, method)(*arguments)
        said = self.scripts[method]
        if isinstance(said, BaseException):
            raise said
        return said

    def appraise(self, *arguments: Any) -> Any:
        return self._run("appraise", *arguments)

    def authorize(self, *arguments: Any) -> Any:
        return self._run("authorize", *arguments)

    def explain_appraisal(self, *arguments: Any) -> Any:
        return self._run("explain_appraisal", *arguments)

    def explain_authorization(self, *arguments: Any) -> Any:
        return self._run("explain_authorization", *arguments)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    made: Any = app._engine(None, None)  # type: ignore[arg-type]  # the shared one
    scripted = ScriptedEngine(made)
    monkeypatch.setattr(app, "_engine", lambda settings, clock: scripted)
    return scripted


@pytest.fixture(params=list(Edge))
def worker(request: pytest.FixtureRequest, engine: ScriptedEngine, site: Site) -> Worker:
    found = site.worker(request.param)
    found.prepare()
    return found


def refusal_of(answer: Answer) -> tuple[int, str]:
    """Status and reason of a refusal that gives nothing away."""
    assert answer.status != 200
    assert SECRET not in answer.body
    assert MARK.encode() not in answer.body
    assert answer.header("content-type") == "application/problem+json"
    return outcome(answer)


ANSWERS: dict[str, tuple[Any, int, str]] = {
    "false": (False, 403, "policy_denied"),
    "null": (None, 403, "policy_denied"),
    "text": ("true", 403, "policy_denied"),
    "one": (1, 403, "policy_denied"),
    "object": ({}, 403, "policy_denied"),
    "object with allow": ({"allow": True}, 403, "policy_denied"),
    "list": ([True], 403, "policy_denied"),
    "undefined": (UNDEFINED, 403, "policy_denied"),
    "broken": (PolicyBroken(MARK), 500, "policy_broken"),
    "unavailable": (PolicyEngineUnavailable(MARK), 503, "policy_engine_unavailable"),
    "value error": (ValueError(MARK), 500, "internal_error"),
    "recursion": (RecursionError(MARK), 500, "internal_error"),
    "memory": (MemoryError(MARK), 500, "internal_error"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_only_the_boolean_true_opens(worker: Worker, engine: ScriptedEngine, name: str) -> None:
    said, status, reason = ANSWERS[name]
    guest = worker.guest()
    guest.attest()
    engine.scripts["authorize"] = said
    answer = worker.get(cookie=guest.cookie)
    assert refusal_of(answer) == (status, reason)
    assert [each["reason"] for each in worker.audit_records() if each["kind"] == "release.denied"] == [reason]
    engine.scripts["authorize"] = True
    assert worker.get(cookie=guest.cookie).status == 200


@pytest.mark.parametrize("error", [PolicyBroken(MARK), PolicyEngineUnavailable(MARK), ValueError(MARK)])
def test_a_no_that_cannot_be_explained_is_no(worker: Worker, engine: ScriptedEngine, error: Exception) -> None:
    guest = worker.guest()
    guest.attest()
    engine.scripts = {"authorize": False, "explain_authorization": error}
    assert refusal_of(worker.get(cookie=guest.cookie)) == (403, "policy_denied")


VERDICTS: dict[str, tuple[Any, int, str]] = {
    "none": (None, 500, "internal_error"),
    "true": (True, 500, "internal_error"),
    "object": ({"trust_claims": {"hardware": 2}}, 500, "internal_error"),
    "nothing asserted": (EvidenceVerdict({}, {}), 500, "policy_broken"),
    "true for a number": (EvidenceVerdict({"hardware": True}, {}), 500, "policy_broken"),
    "text": (EvidenceVerdict({"hardware": "2"}, {}), 500, "policy_broken"),  # type: ignore[dict-item]
    "beyond a byte": (EvidenceVerdict({"hardware": 258}, {}), 500, "policy_broken"),
    "unknown claim": (EvidenceVerdict({"affirming": 2}, {}), 500, "policy_broken"),
    "extension over the status": (EvidenceVerdict({"hardware": 97}, {"ear.status": "affirming"}), 500, "policy_broken"),
    "extension that is no JSON": (EvidenceVerdict({"hardware": 2}, {"x": UNDEFINED}), 500, "internal_error"),
    "broken": (PolicyBroken(MARK), 500, "policy_broken"),
    "unavailable": (PolicyEngineUnavailable(MARK), 503, "policy_engine_unavailable"),
    "value error": (ValueError(MARK), 500, "internal_error"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_only_a_well_formed_verdict_makes_a_token(worker: Worker, engine: ScriptedEngine, name: str) -> None:
    said, status, reason = VERDICTS[name]
    guest = worker.guest()
    body = guest.attestation_for(guest.challenge())
    engine.scripts["appraise"] = said
    assert refusal_of(worker.attest(body, guest.cookie)) == (status, reason)
    assert refusal_of(worker.get(cookie=guest.cookie)) == (401, "token_missing")
    engine.scripts.clear()
    again = worker.attest(body, guest.cookie)
    assert outcome(again) == ((200, "ok") if status == 503 else (401, "challenge_used"))


# --- a fault at every step --------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def raising(owner: Any, name: str, error: Exception) -> Patch:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return lambda patch: patch.setattr(owner, name, fail)


def no_space() -> OSError:
    return OSError(errno.ENOSPC, MARK)


FULL_AUDIT = raising(AuditLog, "_write", no_space())
AUDIT_BUG = raising(AuditLog, "_write", RuntimeError(MARK))
STORE_DOWN = raising(SqliteStore, "change_token", StorageUnavailable(MARK))
IN_ATTEST: dict[str, tuple[Patch, int, str]] = {
    "handshake store at claim": (
        raising(FileHandshakeStore, "claim", StorageUnavailable(MARK)), 503, "storage_unavailable",
    ),
    "handshake store at finish": (
        raising(FileHandshakeStore, "finish", StorageUnavailable(MARK)), 503, "storage_unavailable",
    ),
    "bug at finish": (raising(FileHandshakeStore, "finish", RuntimeError(MARK)), 500, "internal_error"),
    "verifier: bug in needs": (raising(SnpVerifier, "needs", KeyError(MARK)), 500, "internal_error"),
    "verifier: bug in verify": (raising(SnpVerifier, "verify", IndexError(MARK)), 500, "internal_error"),
    "verifier: another fault": (raising(SnpVerifier, "verify", StorageUnavailable(MARK)), 500, "internal_error"),
    "verifier: no claims": (
        lambda patch: patch.setattr(SnpVerifier, "verify", lambda *_: []), 500, "internal_error",
    ),
    "store down": (STORE_DOWN, 503, "reference_values_unavailable"),
    "issuer": (raising(TokenIssuer, "issuing", RuntimeError(MARK)), 500, "internal_error"),
    "audit full": (FULL_AUDIT, 503, "audit_unavailable"),
    "audit: bug": (AUDIT_BUG, 500, "internal_error"),
    "acceptor that remembers": (raising(TokenAcceptor, "remember", RuntimeError(MARK)), 500, "internal_error"),
}  # fmt: skip


@contextmanager
def endorsements_down(worker: Worker) -> Iterator[None]:
    """Collateral that is needed and cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        service: Any = _attestation_of(worker)._endorsements
        patch.setattr(type(service), "cached", lambda *_: None)
        raising(type(service), "fetch", EndorsementsUnavailable(MARK))(patch)
        yield


@contextmanager
def references_down(worker: Worker) -> Iterator[None]:
    """A provider of reference values that does not answer."""

    def snapshot(_: Any, at: datetime) -> Any:
        raise ProviderUnavailable(MARK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(worker.broker.references), "snapshot", snapshot)
        yield


def _attestation_of(worker: Worker) -> Any:
    """The attestation service of a worker; nothing public leads there."""
    for route in worker.broker.dispatcher.table.routes:
        if route.template.endswith("/attest"):
            (handshakes,) = [cell.cell_contents for cell in getattr(route.handler, "__closure__", ())]
            return handshakes._attestation
    raise AssertionError("no attest route")


def check_attest(worker: Worker, fault: AbstractContextManager[Any], status: int, reason: str) -> None:
    """Attest while the fault is there; then again."""
    guest = worker.guest()
    body = guest.attestation_for(guest.challenge())
    with fault:
        answer = worker.attest(body, guest.cookie)
    assert refusal_of(answer) == (status, reason)
    assert b"token" not in answer.body
    assert refusal_of(worker.get(cookie=guest.cookie)) == (401, "token_missing")
    decision = answer.json.get("decision")
    assert decision is None or decision in {each["decision"] for each in worker.audit_records()}
    again = worker.attest(body, guest.cookie)
    assert outcome(again) == ((200, "ok") if status == 503 else (401, "challenge_used"))
    assert worker.get(cookie=guest.cookie).status == (200 if status == 503 else 401)


@contextmanager
def patched(change: Patch) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        yield


@pytest.mark.parametrize("name", IN_ATTEST)
def test_a_fault_while_attesting(worker: Worker, name: str) -> None:
    change, status, reason = IN_ATTEST[name]
    check_attest(worker, patched(change), status, reason)


def test_endorsements_down(worker: Worker) -> None:
    check_attest(worker, endorsements_down(worker), 503, "endorsements_unavailable")


def test_reference_values_down(worker: Worker) -> None:
    check_attest(worker, references_down(worker), 503, "reference_values_unavailable")


def payload_of(value: Any) -> Patch:
    answer = PluginAnswer(Secret(b""))
    object.__setattr__(answer, "payload", value)
    return lambda patch: patch.setattr(ResourcePlugin, "handle", lambda *_: answer)


IN_RELEASE: dict[str, tuple[Patch, int, str]] = {
    "acceptor": (raising(TokenAcceptor, "accept", RuntimeError(MARK)), 500, "internal_error"),
    "store down": (STORE_DOWN, 503, "storage_unavailable"),
    "plugin: store down": (raising(ResourcePlugin, "handle", StorageUnavailable(MARK)), 503, "storage_unavailable"),
    "plugin: bug": (raising(ResourcePlugin, "handle", KeyError(MARK)), 500, "internal_error"),
    "plugin: says it is our fault": (raising(ResourcePlugin, "handle", ServerFault(MARK)), 500, "internal_error"),
    "plugin: bare root error": (raising(ResourcePlugin, "handle", KbsError(MARK)), 500, "internal_error"),
    "plugin: answers nothing": (lambda patch: patch.setattr(ResourcePlugin, "handle", lambda *_: None), 500,
                                "internal_error"),
    "plugin: answers bare bytes": (payload_of(SECRET), 500, "internal_error"),
    "plugin: answers text": (payload_of(Secret(MARK)), 500, "internal_error"),  # type: ignore[arg-type]
    "sealing": (raising(jwe, "seal", RuntimeError(MARK)), 500, "internal_error"),
    "audit full": (FULL_AUDIT, 503, "audit_unavailable"),
    "audit: bug": (AUDIT_BUG, 500, "internal_error"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_RELEASE)
def test_a_fault_while_releasing(worker: Worker, name: str) -> None:
    change, status, reason = IN_RELEASE[name]
    guest = worker.guest()
    guest.attest()
    with patched(change):
        answer = worker.get(cookie=guest.cookie)
    assert refusal_of(answer) == (status, reason)
    assert not [each for each in worker.audit_records() if each["kind"] == "release.granted"]
    decision = answer.json.get("decision")
    assert decision is None or decision in {each["decision"] for each in worker.audit_records()}
    assert worker.get(cookie=guest.cookie).status == 200  # well again without a person
    assert len([each for each in worker.audit_records() if each["kind"] == "release.granted"]) == 1


@pytest.mark.parametrize("kind", ["attest", "resource"])
def test_audit_and_handshake_store_full_together(worker: Worker, kind: str) -> None:
    """One full disk under both: answers come, none of them a success, and all is well once there is room."""
    guest = worker.guest()
    body = guest.attestation_for(guest.challenge())
    if kind == "resource":
        worker.attest(body, guest.cookie)
    with pytest.MonkeyPatch.context() as patch:
        FULL_AUDIT(patch)
        for name in ("release", "refuse", "finish"):
            raising(FileHandshakeStore, name, StorageUnavailable(MARK))(patch)
        answer = worker.attest(body, guest.cookie) if kind == "attest" else worker.get(cookie=guest.cookie)
        assert refusal_of(answer)[0] == 503
    assert worker.guest().get_resource("default/key/1") == SECRET


def test_handshake_store_down_on_another_worker(worker: Worker, site: Site) -> None:
    """Where nothing is remembered of the session, whether it is finished cannot be said."""
    guest = worker.guest()
    guest.attest()
    other = site.worker(worker.edge)
    with patched(raising(FileHandshakeStore, "token", StorageUnavailable(MARK))):
        assert refusal_of(other.get(cookie=guest.cookie)) == (503, "storage_unavailable")
    assert other.get(cookie=guest.cookie).status == 200


def test_of_a_batch_each_settles_by_itself(engine: ScriptedEngine, site: Site) -> None:
    """The event loop settles what waits together under one lock; one that fails takes nobody along."""
    worker = site.worker(Edge.ASGI)
    worker.prepare()
    original = FileHandshakeStore.finish
    failures = [StorageUnavailable(MARK), None, None, StorageUnavailable(MARK), None]

    def finish(self: FileHandshakeStore, challenge_id: str, token: str) -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        original(self, challenge_id, token)

    look = Cohort._look

    def wait(self: Any, loop: asyncio.AbstractEventLoop) -> None:
        """All five in one batch, however slow this machine is: one that waits alone needs no `together`."""
        if self._count == 5:
            look(self, loop)
        else:
            loop.call_soon(self._look, loop)

    opened = []
    for _ in range(5):
        guest = worker.guest()
        opened.append((guest, guest.attestation_for(guest.challenge())))
    requests = [Request("POST", "/kbs/v0/attest", session(guest.cookie or ""), body) for guest, body in opened]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileHandshakeStore, "finish", finish)
        patch.setattr(Cohort, "_look", wait)
        answers = [*worker.send_all(requests)]
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 503, 503]
    for (guest, _), answer in zip(opened, answers, strict=True):
        if answer.status == 200:
            assert worker.get(cookie=guest.cookie).status == 200
        else:
            assert refusal_of(answer) == (503, "storage_unavailable")
            assert refusal_of(worker.get(cookie=guest.cookie)) == (401, "token_missing")
    for answer in worker.send_all(requests):
        assert outcome(answer) == (200, "ok")
