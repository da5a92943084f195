"""What a namespace's labelled Secrets are, kept in memory by a watch: reading one asks nobody.

A watch is renewed every half minute, so that a silent one has proved by its end that nothing was missed. When there has
been no proof for `most_stale` seconds nothing is served any more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from kbs.errors import StorageUnavailable
from kbs.plugins.resource.backends.kubernetes_api import Absent, Change, Conflicted, Held, SecretsApi, WatchExpired
from kbs.plugins.resource.model import StoreRefuses

_T = TypeVar("_T")
_WATCH: Final = 30  # seconds
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between tries
_FORGOTTEN: Final = 10_000  # tombstones kept, so that a late event brings nothing back


class SecretCache:
    """Secrets by name. The thread that watches starts with the first question, in each process its own."""

    def __init__(self, api: SecretsApi, ticks: Callable[[], float], most_stale: float, patience: float) -> None:
        """patience: seconds the first question waits for the first list."""
        self._api = api
        self._ticks = ticks
        self._most_stale = most_stale
        self._patience = patience
        self._process = 0
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, Held] = {}
        self._gone: dict[str, int] = {}
        self._proved: float | None = None
        self._trouble: Exception | None = None
        self._stop = threading.Event()

    def find(self, name: str) -> Held | None:
        """One of them, not older than `most_stale`.

        Raises:
            StorageUnavailable: nothing that young is known. StoreRefuses: because the broker may not list or watch.
        """
        return self._current(lambda held: held.get(name))

    def every(self) -> Sequence[Held]:
        """All of them; raises as `find` does."""
        return self._current(lambda held: tuple(held.values()))

    def _current(self, read: Callable[[Mapping[str, Held]], _T]) -> _T:
        self._start()
        with self._changed:
            if self._proved is None:
                self._changed.wait_for(lambda: self._proved is not None or self._trouble is not None, self._patience)
            proved, trouble = self._proved, self._trouble
            if proved is not None and self._ticks() - proved <= self._most_stale:
                return read(self._held)
        if isinstance(trouble, StoreRefuses):
            raise StoreRefuses(str(trouble))
        told = trouble.operator_detail if isinstance(trouble, StorageUnavailable) else "nothing heard"
        detail = f"no word from the Kubernetes API for more than {self._most_stale:g} s: {told}"
        raise StorageUnavailable("the store of this resource does not answer", operator_detail=detail)

    def remember(self, held: Held) -> None:
        """What a write or a question has shown."""
        with self._changed:
            self._apply(Change(held.version, False, held))

    def forget(self, held: Held) -> None:
        """What was just removed."""
        with self._changed:
            self._apply(Change(held.version, True, held))

    def close(self) -> None:
        """End the watch at its next event."""
        self._stop.set()

    def _start(self) -> None:
        if self._process != os.getpid():
            with _STARTING:
                if self._process != os.getpid():
                    self._reset()  # threads and locks do not outlive a fork
                    threading.Thread(target=self._follow, args=(self._stop,), name="kubernetes", daemon=True).start()
                    self._process = os.getpid()

    def _follow(self, stop: threading.Event) -> None:
        tries = 0
        while not stop.is_set():
            try:
                version = self._list()
                tries = 0
                while not stop.is_set():
                    version = self._watch(version, stop)
            except WatchExpired:
                pass  # lists again
            except (StorageUnavailable, StoreRefuses, Conflicted, Absent) as err:
                with self._changed:
                    self._trouble = err
                    self._changed.notify_all()
            stop.wait(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    def _list(self) -> int:
        asked = self._ticks()  # the answer is no older than the question
        held, version = self._api.list_all()
        with self._changed:
            self._held, self._gone = dict(held), {}
            self._proved, self._trouble = asked, None
            self._changed.notify_all()
        return version

    def _watch(self, version: int, stop: threading.Event) -> int:
        for change in self._api.watch(version, _WATCH, self._prove):
            if stop.is_set():
                return version
            with self._changed:
                self._apply(change)
            self._prove()
            version = change.version
        self._prove()
        return version

    def _prove(self) -> None:
        with self._changed:
            self._proved, self._trouble = self._ticks(), None

    def _apply(self, change: Change) -> None:
        held = change.held
        if held is None:
            return
        known = self._held.get(held.name)
        newest = max(known.version if known else 0, self._gone.get(held.name, 0))
        if change.gone and change.version >= newest:
            self._held.pop(held.name, None)
            if len(self._gone) >= _FORGOTTEN:
                self._gone.pop(next(iter(self._gone)))
            self._gone[held.name] = change.version
        elif not change.gone and change.version > newest:
            self._held[held.name] = held
            self._gone.pop(held.name, None)


_STARTING: Final = threading.Lock()
