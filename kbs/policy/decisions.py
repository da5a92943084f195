"""What policies were given, kept for a while: so that a change can be tried on the decisions it would have met.

Claims and the request, as the policy saw them, with what came out. Never a secret, a token or raw evidence apart from
what a policy is given. A decision leaves its input in memory and goes on; a thread seals and writes what gathered. What
does not fit is dropped, the oldest first: this is a sample for authors, the audit log is the record.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kbs.clock import Clock
from kbs.errors import StorageUnavailable
from kbs.policy.engine import PolicyKind
from kbs.storage.recent import Bounds, RecentStore

_LOG = logging.getLogger("kbs.policy")
_SOON: Final = 1.0  # seconds from a decision to the file
_LATER: Final = 10.0  # the same after a second with many
_MANY: Final = 100  # decisions
_MAX_WAITING: Final = 8 << 20  # octets that wait for the thread


@dataclass(slots=True)
class DecisionInput:
    """One evaluation of one policy.

    policy_id, policy: id and SHA-256 of the text that decided; for a resource, of the global one.
    part: submodule of the evidence; empty for a resource.
    claims: the input document as our own encoder made it. request: for a resource, what appears as `data`.
    outcome: `{"status", "vector"}`, `{"allow"}` or `{"error"}`; with `shadow` where a candidate was staged.
    references: version of the reference values.
    extensions: of the appraisal; the outcome that is kept has them as `extension_digests` does.
    """

    decision: str
    kind: PolicyKind
    policy_id: str
    policy: str
    claims: bytes = field(repr=False)
    outcome: Mapping[str, Any]
    part: str = ""
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    references: str = ""
    extensions: Mapping[str, Any] = field(default_factory=dict, repr=False)


def extension_digests(extensions: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """`{"extensions": name → SHA-256 of the value, 16 hex digits}`, or nothing without extensions.

    Enough to see that a value would be another one; what it is may say much about a workload.
    """
    if not extensions:
        return {}
    texts = {name: json.dumps(value, sort_keys=True) for name, value in sorted(extensions.items())}
    return {"extensions": {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}}


class KeptDecision(msgspec.Struct, frozen=True):
    """The same, read back. time: RFC 3339."""

    decision: str
    kind: str
    policy_id: str
    policy: str
    part: str
    references: str
    time: str
    outcome: dict[str, Any]
    request: dict[str, Any] | None
    claims: msgspec.Raw


class DecisionInputs:
    """The newest inputs of all workers. `keep` costs a microsecond and never fails.

    Args:
        store: where they lie. bounds: the store's own; `records` 0 keeps nothing.
    """

    def __init__(self, store: RecentStore, bounds: Bounds, clock: Clock) -> None:
        self._store = store
        self._bounds = bounds
        self._clock = clock
        self._most = min(bounds.octets // 2, _MAX_WAITING)
        self._largest = self._most // 2
        self._waiting: deque[DecisionInput] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.dropped = 0
        """Inputs that were too large, or could not be written."""

    def keep(self, made: DecisionInput) -> None:
        """Leave an input for the thread."""
        size = len(made.claims)
        if size > self._largest or not self._bounds.records:
            self.dropped += 1
            return
        with self._lock:
            waiting = self._waiting
            waiting.append(made)
            self._size += size
            while len(waiting) > self._bounds.records or self._size > self._most:
                self._size -= len(waiting.popleft().claims)
        if not self._awake.is_set():
            self._wake()

    def flush(self) -> None:
        """Write now what waits in this process. What cannot be written is dropped: decisions do not depend on it."""
        with self._lock:
            batch, self._waiting, self._size = self._waiting, deque(), 0
        if not batch:
            return
        now = self._clock()
        time = now.isoformat()
        try:
            self._store.append(b"\n".join(self._lines(batch, time)), len(batch), now.timestamp())
        except StorageUnavailable as err:
            self.dropped += len(batch)
            _LOG.warning("inputs of decisions not kept", extra={"members": {"detail": err.operator_detail or str(err)}})

    def _lines(self, batch: Iterable[DecisionInput], time: str) -> Iterator[bytes]:
        for made in batch:
            try:
                yield _line(made, time)
            except (TypeError, ValueError, RecursionError):  # what does not go into JSON
                self.dropped += 1

    def last(self, count: int) -> Sequence[KeptDecision]:
        """The newest inputs, newest first, those of other workers as far as they have written them.

        Raises:
            StorageUnavailable: the store cannot be read.
        """
        self.flush()
        found: list[KeptDecision] = []
        for batch in self._store.newest_first(self._clock().timestamp() - self._bounds.seconds):
            for line in reversed(batch.split(b"\n")):
                if len(found) >= count:
                    return found
                with suppress(msgspec.DecodeError):  # of another version of this program
                    found.append(msgspec.json.decode(line, type=KeptDecision))
        return found

    def of(self, decision: str) -> Sequence[KeptDecision]:
        """What was kept of one decision: one input for each submodule of the evidence, or that of a release.

        Raises:
            StorageUnavailable: the store cannot be read.
        """
        self.flush()
        named = decision.encode()
        found: list[KeptDecision] = []
        for batch in self._store.newest_first(self._clock().timestamp() - self._bounds.seconds):
            for line in batch.split(b"\n"):
                if named not in line:
                    continue
                with suppress(msgspec.DecodeError):  # of another version of this program
                    kept = msgspec.json.decode(line, type=KeptDecision)
                    if kept.decision == decision:
                        found.append(kept)
            if found:  # a decision leaves all of its inputs at once
                return found
        return found

    def close(self) -> None:
        """Write what waits, then end the thread."""
        self._closed.set()
        self._awake.set()
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join()
        self.flush()
        self._store.close()

    def _wake(self) -> None:
        if self._thread is None or self._pid != os.getpid():
            with self._lock:
                if self._thread is None or self._pid != os.getpid():  # forked: the thread is the parent's
                    self._pid = os.getpid()
                    self._thread = threading.Thread(target=self._work, name="decision-inputs", daemon=True)
                    self._thread.start()
        self._awake.set()

    def _work(self) -> None:
        delay = _SOON
        while not self._closed.is_set():
            self._awake.wait()
            self._closed.wait(delay)
            self._awake.clear()
            delay = _LATER if len(self._waiting) > _MANY else _SOON
            self.flush()


_ENCODER: Final = msgspec.json.Encoder()


def _line(made: DecisionInput, time: str) -> bytes:
    members = {
        "decision": made.decision,
        "kind": made.kind.value,
        "policy_id": made.policy_id,
        "policy": made.policy,
        "part": made.part,
        "references": made.references,
        "time": time,
        "outcome": {**made.outcome, **extension_digests(made.extensions)},
        "request": made.request,
        "claims": msgspec.Raw(made.claims),
    }
    return _ENCODER.encode(members)
