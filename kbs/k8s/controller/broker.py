"""A broker as the reconcilers see it: a small port over the admin client, and what refusals mean for a condition."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import httpx

from kbs.client.admin import AdminClient
from kbs.client.errors import (
    AdminRefused,
    BadRequest,
    ClientError,
    ClientMisconfigured,
    Conflict,
    NotFound,
    TryLater,
    Unacceptable,
    UnexpectedAnswer,
    Unreachable,
)
from kbs.client.init_data import InitDataClient
from kbs.client.policies import PolicyClient
from kbs.secret import Secret

USER_AGENT: Final = "kbs-controller"
TIMEOUT: Final = 10.0
"""Seconds for each of connecting, sending and waiting: a worker is not held longer by a broker that hangs."""

_UNAUTHORIZED: Final = 401


class Broker(Protocol):
    """Requests to one broker. Safe from several threads. Each raises `ClientError`."""

    def status(self) -> Mapping[str, Any]:
        """What it says about itself."""

    def resource_versions(self, path: str) -> Mapping[str, int]:
        """Current versions of the resource `path`, or of all below it, by path. Never their bytes."""

    def set_resource(self, path: str, value: Secret, expected: int) -> int:
        """Write a resource; its version. expected: the version that must be current, 0 for none; else `Conflict`."""

    def delete_resource(self, path: str) -> None:
        """Remove a resource with all versions; one that is not there is fine."""

    def policy(self, kind: str, policy_id: str) -> tuple[int, str] | None:
        """Version and SHA-256 (hex) of the active text."""

    def set_policy(self, kind: str, policy_id: str, text: bytes, expected: int) -> int:
        """Make a text active; its version. expected: as for resources."""

    def remove_policy(self, kind: str, policy_id: str) -> None:
        """Leave a scope without a policy; one that is not there is fine."""

    def register(self, message: Mapping[str, Any]) -> None:
        """Send one RVPS message as it is."""

    def set_values(self, values: Mapping[str, Any], expires: datetime | None) -> None:
        """State values by name, all or none."""

    def withdraw(self, name: str) -> None:
        """Take one name away; one that is not there is fine."""

    def init_data(self) -> Mapping[str, str]:
        """Digests (hex) of the registered documents, by entry."""

    def register_init_data(self, name: str, owner: str, raw: bytes) -> None:
        """Keep a document and let guests that were started with it match."""

    def remove_init_data(self, name: str) -> None:
        """Forget a document; one that is not there is fine."""

    def close(self) -> None:
        """End all connections."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error of the broker for a condition. final: asking again with the same input leads to the same."""

    reason: str
    message: str
    final: bool = False
    pause: float = 0.0


def trouble(err: ClientError) -> Trouble:
    """What a failed request means."""
    text = str(err)
    if isinstance(err, Unreachable):
        return Trouble("BrokerUnreachable", text)
    if isinstance(err, AdminRefused):
        return Trouble("TokenRefused" if err.problem.status == _UNAUTHORIZED else "PermissionDenied", text)
    if isinstance(err, TryLater):
        return Trouble("BrokerBusy", text, pause=float(err.problem.retry_after or 0))
    if isinstance(err, Unacceptable | BadRequest):
        return Trouble("Refused", text, final=True)
    if isinstance(err, Conflict):
        return Trouble("ChangedMeanwhile", text)
    if isinstance(err, NotFound):
        return Trouble("NotFound", text)
    if isinstance(err, ClientMisconfigured):
        return Trouble("Misconfigured", text, final=True)
    return Trouble("BrokerFailed", text)


class AdminBroker:
    """Implements `Broker` over the admin API.

    Args:
        roots: PEM of the only roots to trust; None: the system's.

    Raises:
        ClientMisconfigured: an address or a token of another form, no certificates in `roots`, or a token that would
            go over plain HTTP to another machine without `insecure_http`.
    """

    def __init__(self, url: str, token: Secret, *, roots: bytes | None, insecure_http: bool) -> None:
        transport = None
        if url.startswith("https://"):
            limits = httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=20.0)
            transport = httpx.HTTPTransport(verify=_trust(roots), limits=limits, trust_env=False)
        try:
            text = token.reveal().decode("ascii")
        except UnicodeDecodeError:
            raise ClientMisconfigured("the admin token is not of the form of a Bearer token") from None
        self._admin = AdminClient(
            url,
            token=text,
            ca_file=None,
            insecure_http=insecure_http,
            user_agent=USER_AGENT,
            timeout=TIMEOUT,
            transport=transport,
        )
        self._policies = PolicyClient(self._admin)
        self._init_data = InitDataClient(self._admin)

    def status(self) -> Mapping[str, Any]:
        """As `Broker.status`."""
        return self._admin.status()

    def resource_versions(self, path: str) -> Mapping[str, int]:
        """As `Broker.resource_versions`."""
        found = self._admin.resources(path)
        return {each.name: each.version for each in found if each.name == path or each.name.startswith(f"{path}/")}

    def set_resource(self, path: str, value: Secret, expected: int) -> int:
        """As `Broker.set_resource`."""
        version = self._admin.set_resource(path, value.reveal(), expected=expected)
        if version is None:
            raise UnexpectedAnswer("the broker does not tell the version of a resource")
        return version

    def delete_resource(self, path: str) -> None:
        """As `Broker.delete_resource`."""
        try:
            self._admin.delete_resource(path)
        except NotFound:
            return

    def policy(self, kind: str, policy_id: str) -> tuple[int, str] | None:
        """As `Broker.policy`."""
        try:
            found = self._admin.members("GET", f"admin/policies/{kind}/{policy_id}")
        except NotFound:
            return None
        version, digest = found.get("version"), found.get("digest")
        if type(version) is not int or not isinstance(digest, str):
            raise UnexpectedAnswer("a policy without version or digest")
        return version, digest

    def set_policy(self, kind: str, policy_id: str, text: bytes, expected: int) -> int:
        """As `Broker.set_policy`."""
        reason = "set by the Kubernetes controller"
        version = self._policies.set(kind, policy_id, text, reason=reason, expected=expected)
        if version is None:
            raise UnexpectedAnswer("the broker does not tell the version of a policy")
        return version

    def remove_policy(self, kind: str, policy_id: str) -> None:
        """As `Broker.remove_policy`."""
        try:
            self._policies.remove(kind, policy_id)
        except NotFound:
            return

    def register(self, message: Mapping[str, Any]) -> None:
        """As `Broker.register`."""
        self._admin.register_reference_values(message)

    def set_values(self, values: Mapping[str, Any], expires: datetime | None) -> None:
        """As `Broker.set_values`."""
        self._admin.set_reference_values(values, expires=expires)

    def withdraw(self, name: str) -> None:
        """As `Broker.withdraw`."""
        try:
            self._admin.withdraw_reference_value(name)
        except NotFound:
            return

    def init_data(self) -> Mapping[str, str]:
        """As `Broker.init_data`."""
        return {str(each.get("name")): str(each.get("digest")) for each in self._init_data.all()}

    def register_init_data(self, name: str, owner: str, raw: bytes) -> None:
        """As `Broker.register_init_data`."""
        self._init_data.register(name, owner, raw)

    def remove_init_data(self, name: str) -> None:
        """As `Broker.remove_init_data`."""
        try:
            self._init_data.remove(name)
        except NotFound:
            return

    def close(self) -> None:
        """As `Broker.close`."""
        self._admin.close()


def _trust(roots: bytes | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=None if roots is None else roots.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ClientMisconfigured("the CA bundle holds no certificates in PEM") from None
