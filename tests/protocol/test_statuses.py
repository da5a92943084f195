"""Faults of dependencies and bugs of ours: 503 with `Retry-After`, 500 that says nothing, never an allow, never 401."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kbs.attestation.service import AttestationService
from kbs.audit.log import AuditLog
from kbs.errors import (
    AuditUnavailable,
    DependencyFault,
    EndorsementsUnavailable,
    PolicyBroken,
    PolicyEngineUnavailable,
    ReferenceValuesUnavailable,
    ServerFault,
    StorageUnavailable,
)
from kbs.handshake.service import Handshakes
from kbs.plugins.resource import ResourcePlugin
from kbs.policy.store import PolicyStore
from kbs.policy.wasm import WasmEngine
from kbs.storage.handshakes import MemoryHandshakeStore
from kbs.storage.sealed import SealedStore
from tests.fakes.broker import FIRST_MESSAGE, BrokerUnderTest, bearer, session
from tests.protocol.expect import expect

SECRET = "/kbs/v0/resource/default/key/1"
DEPENDENCIES = (
    EndorsementsUnavailable,
    ReferenceValuesUnavailable,
    PolicyEngineUnavailable,
    StorageUnavailable,
)
HIDDEN = "text-for-operators"


@pytest.fixture
def fail() -> Iterator[Callable[[type, str, Exception], None]]:
    """Make a method raise until the test ends or calls `fail.mend()`."""
    with pytest.MonkeyPatch.context() as patch:

        def fail(kind: type, name: str, err: Exception) -> None:
            def broken(*_: Any, **__: Any) -> Any:
                raise err

            patch.setattr(kind, name, broken)

        fail.mend = patch.undo  # type: ignore[attr-defined]
        yield fail


class Recorder:
    """The audit log, until it is told to fail."""

    error: Exception | None = None


@pytest.fixture(autouse=True)
def recorder() -> Iterator[Recorder]:
    """Stands in the log's place from before the broker is wired."""
    made, append = Recorder(), AuditLog.append

    def record(self: AuditLog, events: Any, **more: Any) -> None:
        if made.error is not None:
            raise made.error
        append(self, events, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditLog, "append", record)
        yield made


def unavailable(answer: Any, err: type[DependencyFault], *, decided: bool) -> None:
    expect(answer, 503, "DependencyUnavailable", err.reason, decided=decided)
    assert HIDDEN not in answer.body.decode()
    assert int(answer.header("retry-after")) > 0


def internal(answer: Any, *, decided: bool, name: str = "InternalError") -> None:
    expect(answer, 500, name, decided=decided)
    assert HIDDEN not in answer.body.decode()


@pytest.mark.parametrize("err", DEPENDENCIES)
def test_a_fault_while_evidence_is_judged_frees_the_challenge(
    broker: BrokerUnderTest, fail: Any, err: type[DependencyFault]
) -> None:
    handshake = broker.handshake()
    fail(AttestationService, "attesting", err(HIDDEN))
    unavailable(handshake.attest(), err, decided=True)
    fail.mend()
    assert handshake.attest().status == 200


@pytest.mark.parametrize("err", [RuntimeError(HIDDEN), KeyError(HIDDEN), ServerFault(HIDDEN), RecursionError()])
def test_a_bug_while_evidence_is_judged_spends_the_challenge(
    broker: BrokerUnderTest, fail: Any, err: Exception
) -> None:
    handshake = broker.handshake()
    fail(AttestationService, "attesting", err)
    internal(handshake.attest(), decided=True)
    fail.mend()
    expect(handshake.attest(), 401, "AttestationError", "challenge_used")


def test_without_a_record_no_token(broker: BrokerUnderTest, recorder: Recorder) -> None:
    """P-AUD-1; the challenge is free again, since nothing was decided."""
    handshake = broker.handshake()
    recorder.error = AuditUnavailable(HIDDEN)
    unavailable(handshake.attest(), AuditUnavailable, decided=False)
    recorder.error = None
    assert handshake.attest().status == 200


@pytest.mark.parametrize("method", ["claim", "token"])
def test_handshakes_cannot_be_stored(broker: BrokerUnderTest, fail: Any, method: str) -> None:
    handshake = broker.handshake()
    fail(MemoryHandshakeStore, method, StorageUnavailable(HIDDEN))
    answer = handshake.attest() if method == "claim" else broker.call("GET", SECRET, session(handshake.cookie))
    unavailable(answer, StorageUnavailable, decided=False)
    fail.mend()
    assert handshake.attest().status == 200


def test_a_finish_that_fails_gives_no_token(broker: BrokerUnderTest, fail: Any) -> None:
    handshake = broker.handshake()
    fail(MemoryHandshakeStore, "finish", StorageUnavailable(HIDDEN))
    answer = handshake.attest()
    assert (answer.status, answer.name) == (503, "DependencyUnavailable")
    fail.mend()
    expect(broker.call("GET", SECRET, session(handshake.cookie)), 401, "TokenNotFound")


def test_a_bug_in_auth(broker: BrokerUnderTest, fail: Any) -> None:
    fail(Handshakes, "challenge", RuntimeError(HIDDEN))
    internal(broker.call("POST", "/kbs/v0/auth", body=FIRST_MESSAGE), decided=False)


@pytest.mark.parametrize(
    ("kind", "method", "err"),
    [
        (WasmEngine, "authorize", PolicyEngineUnavailable),
        (PolicyStore, "active", StorageUnavailable),
        (ResourcePlugin, "handle", StorageUnavailable),
        (SealedStore, "get", StorageUnavailable),
    ],
)
def test_a_fault_while_a_release_is_decided(
    broker: BrokerUnderTest, fail: Any, kind: type, method: str, err: type[DependencyFault]
) -> None:
    token = broker.guest().attest()
    fail(kind, method, err(HIDDEN))
    unavailable(broker.call("GET", SECRET, [bearer(token)]), err, decided=True)
    fail.mend()
    assert broker.call("GET", SECRET, [bearer(token)]).status == 200


@pytest.mark.parametrize(
    ("kind", "method", "err", "name"),
    [
        (WasmEngine, "authorize", PolicyBroken(HIDDEN), "PolicyEngineError"),
        (WasmEngine, "authorize", ValueError(HIDDEN), "InternalError"),
        (ResourcePlugin, "handle", ValueError(HIDDEN), "InternalError"),
    ],
)
def test_a_bug_while_a_release_is_decided(
    broker: BrokerUnderTest, fail: Any, kind: type, method: str, err: Exception, name: str
) -> None:
    token = broker.guest().attest()
    fail(kind, method, err)
    internal(broker.call("GET", SECRET, [bearer(token)]), decided=True, name=name)


def test_a_no_that_cannot_be_explained_stays_a_no(broker: BrokerUnderTest, fail: Any) -> None:
    token = broker.guest().attest()
    broker.use_policy("deny-all")
    fail(WasmEngine, "explain_authorization", ValueError(HIDDEN))
    expect(broker.call("GET", SECRET, [bearer(token)]), 403, "PolicyDeny", decided=True)


@pytest.mark.parametrize("outcome", [None, 1, "true", {}, {"allow": True}, [True], object()])
def test_only_true_releases(broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    """P-REL-7, whatever an engine might answer against its contract."""
    token = broker.guest().attest()
    monkeypatch.setattr(WasmEngine, "authorize", lambda *_: outcome)
    expect(broker.call("GET", SECRET, [bearer(token)]), 403, "PolicyDeny", decided=True)


def test_without_a_record_no_release(broker: BrokerUnderTest, recorder: Recorder) -> None:
    token = broker.guest().attest()
    recorder.error = AuditUnavailable(HIDDEN)
    unavailable(broker.call("GET", SECRET, [bearer(token)]), AuditUnavailable, decided=False)
    refused = broker.call("GET", "/kbs/v0/resource/a/b/c", [bearer(token)])
    unavailable(refused, AuditUnavailable, decided=False)


@pytest.mark.parametrize("err", [RuntimeError(HIDDEN), TypeError(HIDDEN)])
def test_a_bug_in_the_record_is_no_release(broker: BrokerUnderTest, recorder: Recorder, err: Exception) -> None:
    token = broker.guest().attest()
    handshake = broker.handshake()
    recorder.error = err
    internal(broker.call("GET", SECRET, [bearer(token)]), decided=False)
    internal(handshake.attest(), decided=False)
    internal(broker.admin("GET", "admin/status"), decided=False)


def test_without_a_record_no_change(broker: BrokerUnderTest, recorder: Recorder) -> None:
    recorder.error = AuditUnavailable(HIDDEN)
    unavailable(broker.admin("POST", "resource/a/b/c", b"x"), AuditUnavailable, decided=False)
    unavailable(broker.admin("GET", "admin/status"), AuditUnavailable, decided=False)
    unavailable(broker.call("GET", "/kbs/v0/admin/status"), AuditUnavailable, decided=False)
    recorder.error = None
    expect(broker.admin("GET", "admin/resources/a/b/c"), 404, "ResourceNotFound")


def test_a_store_that_is_down_for_administrators(broker: BrokerUnderTest, fail: Any) -> None:
    fail(SealedStore, "change_token", StorageUnavailable(HIDDEN))
    unavailable(broker.admin("GET", "admin/status"), StorageUnavailable, decided=False)
    unavailable(broker.admin("POST", "resource/a/b/c", b"x"), StorageUnavailable, decided=False)


def test_a_bug_in_administration(broker: BrokerUnderTest, fail: Any) -> None:
    fail(PolicyStore, "list", RuntimeError(HIDDEN))
    internal(broker.admin("GET", "admin/policies"), decided=False)


def test_what_a_peer_is_not_told_an_operator_reads(
    broker: BrokerUnderTest, fail: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`instance` is in the log line, with what the body leaves out."""
    cookie = broker.attested().cookie
    assert cookie is not None
    fail(PolicyStore, "active", StorageUnavailable("short", operator_detail=HIDDEN))
    with caplog.at_level("INFO", logger="kbs.web"):
        answer = broker.call("GET", SECRET, session(cookie))
    (members,) = [record.members for record in caplog.records if hasattr(record, "members")]
    assert answer.json["instance"].endswith(members["instance"])
    assert (members["detail"], members["path"], members["decision"]) == (HIDDEN, SECRET, answer.json["decision"])
