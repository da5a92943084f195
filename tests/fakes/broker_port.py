"""A broker in memory behind the controller's port; counts every write."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kbs.client.errors import ClientError, Conflict, Problem, Unacceptable
from kbs.secret import Secret


class FakeBroker:
    """Implements `kbs.k8s.controller.broker.Broker`. failure: raised by every request while it is set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self.failure: ClientError | None = None
        self.writes: list[str] = []
        self.resources: dict[str, tuple[int, bytes]] = {}
        self.policies: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.messages: list[Mapping[str, Any]] = []
        self.values: dict[str, Any] = {}
        self.entries: dict[str, bytes] = {}
        self.said: dict[str, Any] = {"version": "0.1.0", "tees": ["snp"], "policy_set": "default", "insecure": []}
        self.closed = 0

    def status(self) -> Mapping[str, Any]:
        self._check()
        return self.said

    def resource_versions(self, path: str) -> Mapping[str, int]:
        self._check()
        return {
            name: version
            for name, (version, _) in self.resources.items()
            if name == path or name.startswith(path + "/")
        }

    def set_resource(self, path: str, value: Secret, expected: int) -> int:
        self._expect(expected, self.resources.get(path))
        version = self._write(f"set {path}", path)
        self.resources[path] = (version, value.reveal())
        return version

    def delete_resource(self, path: str) -> None:
        self._write(f"delete {path}", path)
        self.resources.pop(path, None)

    def policy(self, kind: str, policy_id: str) -> tuple[int, str] | None:
        self._check()
        found = self.policies.get((kind, policy_id))
        return None if found is None else (found[0], hashlib.sha256(found[1]).hexdigest())

    def set_policy(self, kind: str, policy_id: str, text: bytes, expected: int) -> int:
        self._expect(expected, self.policies.get((kind, policy_id)))
        version = self._write(f"policy {kind}/{policy_id}", f"{kind}/{policy_id}")
        if b"broken" in text:
            raise Unacceptable(Problem(422, "PolicyEngineError", "rego_parse_error at 1:1"))
        self.policies[(kind, policy_id)] = (version, text)
        return version

    def remove_policy(self, kind: str, policy_id: str) -> None:
        self._write(f"remove policy {kind}/{policy_id}", "")
        self.policies.pop((kind, policy_id), None)

    def register(self, message: Mapping[str, Any]) -> None:
        self._write("register", "")
        if message.get("type") == "bad":
            raise Unacceptable(Problem(422, "RvpsError", "the signature does not verify"))
        self.messages.append(message)

    def set_values(self, values: Mapping[str, Any], expires: datetime | None) -> None:
        self._write("values", "")
        self.values.update(values)

    def withdraw(self, name: str) -> None:
        self._write(f"withdraw {name}", "")
        self.values.pop(name, None)

    def init_data(self) -> Mapping[str, str]:
        self._check()
        return {name: hashlib.sha256(raw).hexdigest() for name, raw in self.entries.items()}

    def register_init_data(self, name: str, owner: str, raw: bytes) -> None:
        self._write(f"init data {name}", "")
        self.entries[name] = raw

    def remove_init_data(self, name: str) -> None:
        self._write(f"remove init data {name}", "")
        self.entries.pop(name, None)

    def close(self) -> None:
        self.closed += 1

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _expect(self, version: int, held: tuple[int, bytes] | None) -> None:
        self._check()
        if version != (0 if held is None else held[0]):
            raise Conflict(Problem(409, "VersionConflict", "another version is current"))

    def _write(self, what: str, counted: str) -> int:
        self._check()
        with self._lock:
            self.writes.append(what)
            self._numbers[counted] = self._numbers.get(counted, 0) + 1
            return self._numbers[counted]
