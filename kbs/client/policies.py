"""An administrator's requests about candidates, versions and scopes of policies, over an `AdminClient`.

`kind` is `evidence` or `resource`; `policy_id` may be a scope such as `path:team-a`. `expected` is the version that
must be current (0: there must be none). Methods raise as `AdminClient` says.
"""

from __future__ import annotations

from kbs.client.admin import AdminClient, condition, version_in
from kbs.client.model import VersionInfo
from kbs.protocol import base64url
from kbs.strict_json import Json


class PolicyClient:
    """What `kbs policy` asks beyond setting and reading."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def set(
        self,
        kind: str,
        policy_id: str,
        text: bytes,
        *,
        tests: bytes | None = None,
        reason: str | None = None,
        expected: int | None = None,
    ) -> int | None:
        """Make a text active under any id, scopes included; its version. tests: Rego tests that must pass."""
        return self._put(_path(kind, policy_id), text, tests, reason, expected)

    def remove(self, kind: str, policy_id: str, *, expected: int | None = None) -> None:
        """Leave a scope, or a class of device, without a policy."""
        self._admin.request("DELETE", _path(kind, policy_id), headers=condition(expected))

    def version(self, kind: str, policy_id: str, version: int) -> tuple[str, VersionInfo]:
        """Text and particulars of a kept version; 0: the shipped one."""
        found = self._admin.members("GET", f"{_path(kind, policy_id)}/versions/{version}")
        text = found.pop("text", "")
        return str(text), VersionInfo.read(found)

    def stage(
        self,
        kind: str,
        policy_id: str,
        text: bytes,
        *,
        tests: bytes | None = None,
        reason: str | None = None,
        expected: int | None = None,
    ) -> int | None:
        """Keep a text as the candidate; the candidate's version. tests: as for `set`."""
        return self._put(f"{_path(kind, policy_id)}/candidate", text, tests, reason, expected)

    def candidate(self, kind: str, policy_id: str) -> dict[str, Json]:
        """The candidate, with how the newest decisions would have gone."""
        return self._admin.members("GET", f"{_path(kind, policy_id)}/candidate")

    def activate(
        self, kind: str, policy_id: str, *, digest: str | None, reason: str | None, expected: int | None = None
    ) -> int | None:
        """Make the candidate active; the new version."""
        message: dict[str, Json] = {}
        if digest is not None:
            message["digest"] = digest
        if reason is not None:
            message["reason"] = reason
        target = f"{_path(kind, policy_id)}/candidate/activate"
        return version_in(self._admin.request("POST", target, message, headers=condition(expected)))

    def discard(self, kind: str, policy_id: str) -> None:
        """End the candidate."""
        self._admin.request("DELETE", f"{_path(kind, policy_id)}/candidate")

    def what_if(self, kind: str, policy_id: str, text: bytes | None, last: int) -> dict[str, Json]:
        """What a text, or without one the candidate, would have made of the newest decisions."""
        message: dict[str, Json] = {"last": last}
        if text is not None:
            message["policy"] = base64url.encode(text).decode("ascii")
        return self._admin.members("POST", f"{_path(kind, policy_id)}/what-if", message)

    def _put(
        self, target: str, text: bytes, tests: bytes | None, reason: str | None, expected: int | None
    ) -> int | None:
        message: dict[str, Json] = {"policy": base64url.encode(text).decode("ascii")}
        if tests is not None:
            message["tests"] = base64url.encode(tests).decode("ascii")
        if reason is not None:
            message["reason"] = reason
        return version_in(self._admin.request("PUT", target, message, headers=condition(expected)))


def _path(kind: str, policy_id: str) -> str:
    return f"admin/policies/{kind}/{policy_id}"
