"""A circuit before a store: while it is down, requests are refused at once instead of waiting for its deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from kbs.errors import StorageUnavailable
from kbs.plugins.resource.model import Backend
from kbs.storage.model import Entry, Record

_T = TypeVar("_T")
_FAILURES: Final = 3  # in a row open the circuit
_PAUSE: Final = 5.0  # seconds; then one request tries


class Breaker:
    """`Backend` around another. Closed: all pass. Open: none, but one each few seconds, whose success closes it."""

    def __init__(self, inner: Backend, ticks: Callable[[], float]) -> None:
        self._inner = inner
        self._ticks = ticks
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0
        self.remote = inner.remote
        self.creates_once = inner.creates_once

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The inner store's."""
        return self._through(lambda: self._inner.get(name, version))

    def put(self, name: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None) -> int:
        """The inner store's."""
        return self._through(lambda: self._inner.put(name, value, meta=meta, expected=expected))

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """The inner store's."""
        return self._through(lambda: self._inner.delete(name, expected=expected))

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """The inner store's."""
        return self._through(lambda: self._inner.entries(prefix))

    def history(self, name: str) -> Sequence[Entry]:
        """The inner store's."""
        return self._through(lambda: self._inner.history(name))

    def _through(self, ask: Callable[[], _T]) -> _T:
        with self._lock:
            if self._failures >= _FAILURES:
                if self._ticks() < self._next_try:
                    raise StorageUnavailable(
                        "the store of this resource does not answer",
                        operator_detail=f"circuit open after {self._failures} failures in a row",
                    )
                self._next_try = self._ticks() + _PAUSE
        try:
            answer = ask()
        except StorageUnavailable:
            with self._lock:
                self._failures += 1
                self._next_try = self._ticks() + _PAUSE
            raise
        except Exception:  # any other answer is an answer: the store is there
            self._close()
            raise
        self._close()
        return answer

    def _close(self) -> None:
        with self._lock:
            self._failures = 0
