"""The default engine: policies that OPA compiled to WebAssembly, evaluated in this process.

Semantics are OPA's own (its compiler, its runtime); this side moves bytes and sets limits. Decisions take one call
into the guest, under fuel and a memory limit. Instances are checked out by one thread at a time and dropped after any
error; reference values are loaded once per version into fresh instances, never changed under a running one.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import wasmtime

from kbs.clock import Clock
from kbs.policy import outcome
from kbs.policy.engine import EvidenceVerdict, Finding, Policy, PolicyKind
from kbs.policy.outcome import broken
from kbs.policy.wasm_instance import FUEL, WasmInstance, WasmModule, new_engine
from rvps.model import Snapshot

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_DATA: Final = b"{}"
_MAX_POLICIES: Final = 1024  # compiled ones, 0.9 MiB each as they come into use; one more costs 0.1 to 0.3 s each time

_Key = tuple[PolicyKind, str]


@dataclass(slots=True)
class _Slot:
    """One policy over one version of the reference values, with the instances that are free."""

    module: WasmModule
    wasm: bytes
    version: str
    values: bytes
    sets: bytes
    data: bytes
    idle: deque[WasmInstance] = field(default_factory=deque)


def nanoseconds(clock: Clock) -> Callable[[], int]:
    """What `time.now_ns` answers under this clock."""
    return lambda: (clock() - _EPOCH) // timedelta(microseconds=1) * 1000


class WasmEngine:
    """`PolicyEngine` on wasmtime. Safe from several threads, and across fork in either order of fork and use."""

    name = "wasm"
    blocks = False

    def __init__(self, clock: Clock, *, fuel: int = FUEL, max_idle: int = 8, interpreter: bool = False) -> None:
        """
        clock: answers `time.now_ns`, once per evaluation.
        max_idle: instances kept per policy, about 1 MiB each; as many as worker threads are enough.
        interpreter: see `new_engine`.
        """
        self._now_ns = nanoseconds(clock)
        self._fuel = fuel
        self._max_idle = max_idle
        self._engine: wasmtime.Engine = new_engine(interpreter=interpreter)
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()
        self._lock = threading.Lock()
        _ENGINES.add(self)

    def prepare(self, policy: Policy) -> None:
        """Compile now (0.1 to 0.3 s) rather than at the first decision.

        Raises:
            PolicyBroken: the policy has no module, or one that does not load.
            PolicyEngineUnavailable: this system refuses to make code executable.
        """
        slot = self._slots.get((policy.kind, policy.digest))
        if slot is None or slot.wasm != policy.wasm:
            slot = self._slot(policy, "", _NO_DATA, _NO_DATA)
        self._give_back(slot, policy, self._take(slot))

    def appraise(self, policy: Policy, claims_json: bytes, references: Snapshot) -> EvidenceVerdict:
        """See `PolicyEngine.appraise`."""
        answer = self._evaluate(policy, PolicyKind.EVIDENCE, 0, claims_json, references)
        return outcome.evidence_verdict(answer, policy.text)

    def authorize(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> bool:
        """See `PolicyEngine.authorize`."""
        document = outcome.resource_input(token_claims_json, request)
        return outcome.allows(self._evaluate(policy, PolicyKind.RESOURCE, 0, document, None))

    def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
        """See `PolicyEngine.explain_appraisal`."""
        return outcome.findings(self._evaluate(policy, PolicyKind.EVIDENCE, 1, claims_json, references))

    def explain_authorization(
        self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]
    ) -> Sequence[Finding]:
        """See `PolicyEngine.explain_authorization`."""
        document = outcome.resource_input(token_claims_json, request)
        return outcome.findings(self._evaluate(policy, PolicyKind.RESOURCE, 1, document, None))

    def close(self) -> None:
        """Free everything; the engine cannot be used any more. Instances in use are freed when they come back."""
        with self._lock:
            slots = list(self._slots.values())
            self._slots.clear()
        for slot in slots:
            _drain(slot)
            slot.module.module.close()
        self._engine.close()

    def _evaluate(
        self, policy: Policy, kind: PolicyKind, which: int, document: bytes, references: Snapshot | None
    ) -> Any:
        if policy.kind is not kind:
            raise broken(f"a policy of kind {policy.kind} where one of kind {kind} is needed")
        slot = self._slots.get((kind, policy.digest))
        if references is None:
            if slot is None or slot.wasm is not policy.wasm:
                slot = self._slot(policy, "", _NO_DATA, _NO_DATA)
        elif (
            slot is None
            or slot.values is not references.encoded
            or slot.sets is not references.encoded_sets
            or slot.version != references.version
            or slot.wasm is not policy.wasm
        ):
            slot = self._slot(policy, references.version, references.encoded, references.encoded_sets)
        instance = self._take(slot)
        answer = instance.evaluate(outcome.ENTRYPOINTS[kind][which], document, self._now_ns)
        self._give_back(slot, policy, instance)
        return outcome.decode(answer)

    def _take(self, slot: _Slot) -> WasmInstance:
        try:
            return slot.idle.pop()
        except IndexError:
            return WasmInstance(slot.module, slot.data, fuel=self._fuel)

    def _give_back(self, slot: _Slot, policy: Policy, instance: WasmInstance) -> None:
        key = (policy.kind, policy.digest)
        if self._slots.get(key) is not slot or len(slot.idle) >= self._max_idle:
            instance.close()
            return
        slot.idle.append(instance)
        if self._slots.get(key) is not slot:  # dropped meanwhile: nobody else would empty it
            _drain(slot)

    def _slot(self, policy: Policy, version: str, values: bytes, sets: bytes) -> _Slot:
        """The slot of this policy over these values, made if need be; an older version's is dropped."""
        if policy.wasm is None:
            raise broken("the active policy has no compiled form; send it again on a machine that has opa")
        key = (policy.kind, policy.digest)
        with self._lock:
            old = self._slots.get(key)
            same_module = old is not None and old.wasm == policy.wasm
            same_values = old is not None and (old.version, old.values, old.sets) == (version, values, sets)
            if old is not None and same_module and same_values:
                old.wasm, old.values, old.sets = policy.wasm, values, sets
                return old
            module = old.module if old is not None and same_module else WasmModule(self._engine, policy.wasm)
            data = _NO_DATA
            if policy.kind is PolicyKind.EVIDENCE:
                data = b'{"kbs":{"reference":' + values + b',"reference_sets":' + sets + b"}}"
            slot = self._slots[key] = _Slot(module, policy.wasm, version, values, sets, data)
            self._slots.move_to_end(key)
            dropped = [old] if old is not None else []
            while len(self._slots) > _MAX_POLICIES:
                dropped.append(self._slots.popitem(last=False)[1])
        for gone in dropped:
            _drain(gone)
        return slot

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def _drain(slot: _Slot) -> None:
    while slot.idle:
        try:
            slot.idle.pop().close()
        except IndexError:
            return


_ENGINES: weakref.WeakSet[WasmEngine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine._renew_lock()


def _at_exit() -> None:
    for engine in list(_ENGINES):
        engine.close()


# wasmtime's finalisers fail noisily once the interpreter has taken its modules down.
atexit.register(_at_exit)
# Another thread may hold the lock at the moment of a fork; in the child nobody would release it.
os.register_at_fork(after_in_child=_after_fork)
