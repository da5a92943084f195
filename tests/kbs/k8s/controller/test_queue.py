"""The queue against a model: each key once, one worker at a time, in the order of time, with pauses that grow."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kbs.k8s.controller.queue import LONGEST_PAUSE, Key, Queue

KEYS = [Key("BrokerResource", "ns", name) for name in "abc"]


class QueueMachine(RuleBasedStateMachine):
    """Beside the queue, a plain dict of when each key is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = Queue(lambda: self.now)
        self.due: dict[Key, float] = {}
        self.busy: set[Key] = set()
        self.again: dict[Key, float] = {}

    @rule(key=st.sampled_from(KEYS), after=st.integers(0, 5))
    def add(self, key: Key, after: int) -> None:
        self.queue.add(key, after)
        where = self.again if key in self.busy else self.due
        where[key] = min(self.now + after, where.get(key, self.now + after))

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        ready = {key: due for key, due in self.due.items() if due <= self.now}
        found = self.queue.take(0.0)
        if not ready:
            assert found is None
            return
        assert found in ready
        assert ready[found] == min(ready.values()), "the one that waits longest comes first"
        del self.due[found]
        self.busy.add(found)

    @rule(key=st.sampled_from(KEYS))
    def done(self, key: Key) -> None:
        if key in self.busy:
            self.queue.done(key)
            self.busy.discard(key)
            if key in self.again:
                self.due[key] = self.again.pop(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.due) + len(self.again)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_pauses_grow_and_end_with_success() -> None:
    queue = Queue(lambda: 0.0)
    pauses = [queue.failed(KEYS[0]) for _ in range(12)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert queue.failed(KEYS[1]) == 1, "each key has its own"
    queue.succeeded(KEYS[0])
    assert queue.failed(KEYS[0]) == 1
    assert queue.failed(KEYS[0], at_least=30) == 30
    assert queue.failed(KEYS[0], at_most=3) == 3


def test_what_is_gone_is_not_looked_at() -> None:
    queue = Queue(lambda: 0.0)
    queue.add(KEYS[0])
    queue.forget(KEYS[0])
    assert queue.take(0.0) is None


def test_closed() -> None:
    queue = Queue(lambda: 0.0)
    queue.add(KEYS[0])
    queue.close()
    assert queue.take(10.0) is None
