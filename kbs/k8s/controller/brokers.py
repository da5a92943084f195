"""Connections to brokers, by KeyBroker: made anew when address, token or CA change, else kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from kbs.client.errors import ClientMisconfigured
from kbs.k8s.controller.broker import AdminBroker, Broker
from kbs.k8s.controller.cache import Snapshot
from kbs.k8s.controller.fence import Fenced, MayAct
from kbs.k8s.controller.sources import Sources, Unmet
from kbs.k8s.model import KeyBroker, KeyBrokerSpec, Resource, is_true
from kbs.secret import Secret


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection is made of."""

    url: str
    token: Secret
    roots: bytes | None
    insecure_http: bool


Connect = Callable[[Access], Broker]


def connect(access: Access) -> Broker:
    """A connection over the admin API. Raises `ClientMisconfigured`."""
    return AdminBroker(access.url, access.token, roots=access.roots, insecure_http=access.insecure_http)


class Brokers:
    """Safe from several threads.

    What a connection was made of is remembered as a MAC under a key of this process, so that the token is kept in one
    place only.

    Args:
        may_act: asked before each change of a broker.
    """

    def __init__(self, sources: Sources, connect: Connect, may_act: MayAct) -> None:
        self._sources = sources
        self._connect = connect
        self._may_act = may_act
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tuple[bytes, Broker]] = {}

    def open(self, broker: KeyBroker) -> Broker:
        """The connection for what the KeyBroker says now; its Secret and its CA are read anew.

        Raises:
            Unmet: they are missing or cannot be used. ApiError: they could not be read.
        """
        spec, namespace = broker.spec, broker.meta.namespace
        token = self._sources.secret_value(namespace, spec.admin_token_secret_ref)
        roots = None if spec.ca_bundle is None else self._sources.bundle(namespace, spec.ca_bundle)
        access = Access(spec.url, token, roots, spec.insecure_http)
        mark = self._mark(access)
        with self._lock:
            known = self._open.get(broker.meta.key)
            if known is not None and hmac.compare_digest(known[0], mark):
                return known[1]
        try:
            made = Fenced(self._connect(access), self._may_act)
        except ClientMisconfigured as err:
            raise Unmet("Misconfigured", str(err)) from None
        with self._lock:
            before = self._open.get(broker.meta.key)
            self._open[broker.meta.key] = (mark, made)
        if before is not None:
            before[1].close()
        return made

    def forget(self, namespace: str, name: str) -> None:
        """The KeyBroker is gone."""
        with self._lock:
            known = self._open.pop((namespace, name), None)
        if known is not None:
            known[1].close()

    def _mark(self, access: Access) -> bytes:
        whole = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (access.url.encode(), access.token.reveal(), access.roots or b"", b"%d" % access.insecure_http):
            whole.update(len(part).to_bytes(8, "big") + part)
        return whole.digest()


def named(resource: Resource[object, object], ref: tuple[str, str], snapshot: Snapshot) -> KeyBroker:
    """The KeyBroker that an object names, if the object may use it.

    Raises:
        Unmet: there is none, it does not let this namespace in, or the kind comes from its own namespace only.
    """
    found = snapshot.get("KeyBroker", *ref)
    if found is None:
        raise Unmet("BrokerNotFound", f"there is no KeyBroker {ref[1]} in namespace {ref[0]}")
    broker: KeyBroker = found
    if ref[0] == resource.meta.namespace:
        return broker
    if resource.kind not in ("BrokerResource", "WorkloadProfile"):
        raise Unmet("BrokerNotAllowed", f"a {resource.kind} is taken only from the namespace of its KeyBroker")
    spec: KeyBrokerSpec = broker.spec
    allowed = next((each for each in spec.allowed_namespaces if each.name == resource.meta.namespace), None)
    if allowed is None:
        raise Unmet("BrokerNotAllowed", f"KeyBroker {ref[0]}/{ref[1]} does not let this namespace in")
    path = getattr(resource.spec, "path", None)
    if path is not None and path.split("/")[0] not in allowed.repositories:
        raise Unmet(
            "PathNotAllowed", f"KeyBroker {ref[0]}/{ref[1]} lets this namespace write no {path.split('/')[0]}/…"
        )
    return broker


def is_admitted(resource: Resource[object, object], ref: tuple[str, str], snapshot: Snapshot) -> bool:
    """Whether an object may use the KeyBroker that it names."""
    try:
        named(resource, ref, snapshot)
    except Unmet:
        return False
    return True


def reachable(broker: KeyBroker) -> None:
    """Raises `Unmet` unless the KeyBroker was found to answer: one object alone tries a broker that does not."""
    if not broker.status.conditions:
        raise Unmet("BrokerNotProbed", f"KeyBroker {broker.meta.name} has not been looked at yet")
    if not is_true(broker.status.conditions, "Reachable"):
        found = next((each for each in broker.status.conditions if each.type == "Reachable"), None)
        said = "" if found is None else f": {found.reason}"
        raise Unmet("BrokerUnreachable", f"KeyBroker {broker.meta.name} is not reachable{said}")
