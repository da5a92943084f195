"""Asking one namespace of a Kubernetes API server for its labelled Secrets.

Bytes of secrets and credentials stay out of errors: of a failure only its kind and status are told. Redirects are not
followed, nothing is asked twice. Source: Kubernetes "API concepts" (watches, resource versions).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from kbs.errors import StorageUnavailable
from kbs.plugins.resource.model import StoreRefuses

_GONE: Final = "the store of this resource does not answer"
_PAGE: Final = 250
_MOST_OCTETS: Final = 256 << 20  # of one listing, all pages: more than a broker should keep in memory
_MOST_LINE: Final = 4 << 20  # of one event: a Secret has 1 MiB, a third more in base64, and metadata
MANAGED_BY: Final = ("app.kubernetes.io/managed-by", "kbs")


class WatchExpired(Exception):
    """410: what happened since that version is not told any more; list again."""


class Conflicted(Exception):
    """409: the Secret changed meanwhile, or there is one already."""


class Absent(Exception):
    """404: no such Secret."""


@dataclass(frozen=True, slots=True)
class Held:
    """One labelled Secret. version: its resourceVersion, a number (promised from Kubernetes 1.35 on)."""

    name: str
    version: int
    created: str
    ours: bool
    data: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. held: None: a bookmark, which only moves `version`."""

    version: int
    gone: bool
    held: Held | None


class SecretsApi:
    """The labelled Secrets of one namespace. Safe from several threads; connects anew in a forked process.

    Raises:
        StorageUnavailable: no answer in time, 429, 5xx, garbage. StoreRefuses: 401, 403, what the API calls invalid.
    """

    def __init__(
        self, configure: Callable[[], Configuration], namespace: str, label: tuple[str, str], timeout: float
    ) -> None:
        self._configure = configure
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._label = label
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: tuple[int, ApiClient] | None = None

    def list_all(self) -> tuple[Mapping[str, Held], int]:
        """All of them by name, and the version of that list."""
        found: dict[str, Held] = {}
        read, more = 0, ""
        while True:
            raw = self._ask("GET", "", {**self._selected(), "limit": _PAGE, **({"continue": more} if more else {})})
            read += len(raw)
            if read > _MOST_OCTETS:
                raise StoreRefuses(f"more than {_MOST_OCTETS >> 20} MiB of labelled Secrets in that namespace")
            answer = _document(raw)
            for item in _at(answer, "items", list):
                held = read_secret(item)
                found[held.name] = held
            metadata = _at(answer, "metadata", dict)
            more = metadata.get("continue") or ""
            if not more:
                return found, _version(metadata)

    def one(self, name: str) -> Held | None:
        """As it is now; None: there is none, or none with the label."""
        raw = self._ask("GET", "", {**self._selected(), "fieldSelector": f"metadata.name={name}"})
        items = _at(_document(raw), "items", list)
        return read_secret(items[0]) if items else None

    def create(self, name: str, key: str, value: bytes) -> Held:
        """Make a Secret with one key. Raises `Conflicted` if there is one of that name, labelled or not."""
        labels = dict((self._label, MANAGED_BY))
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "labels": labels},
            "data": {key: base64.b64encode(value).decode("ascii")},
        }
        return read_secret(_document(self._ask("POST", "", {}, body)))

    def change(self, held: Held, key: str, value: bytes | None) -> Held:
        """Set or (None) remove one key. Raises `Conflicted` if the Secret is not as held any more, `Absent`."""
        text = None if value is None else base64.b64encode(value).decode("ascii")
        body = {"metadata": {"resourceVersion": str(held.version)}, "data": {key: text}}
        return read_secret(_document(self._ask("PATCH", f"/{held.name}", {}, body)))

    def remove(self, held: Held) -> None:
        """Remove a Secret. Raises `Conflicted` if it is not as held any more, `Absent`."""
        self._ask("DELETE", f"/{held.name}", {}, {"preconditions": {"resourceVersion": str(held.version)}})

    def watch(self, version: int, seconds: int, begun: Callable[[], None]) -> Iterator[Change]:
        """What changes from that version on, until the server ends the watch, about `seconds` later.

        begun: called when the server has accepted. Raises also `WatchExpired`.
        """
        query = {**self._selected(), "watch": "1", "resourceVersion": version, "timeoutSeconds": seconds}
        query["allowWatchBookmarks"] = "true"
        response = self._send("GET", "", query, None, (self._timeout, seconds + self._timeout))
        try:
            if response.status != 200:
                _refuse(response.status)
            begun()
            for line in _lines(response):
                yield _change(line)
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise _unavailable(type(err).__name__) from None
        finally:
            response.close()

    def _selected(self) -> dict[str, Any]:
        return {"labelSelector": "=".join(self._label)}

    def _ask(self, method: str, path: str, query: Mapping[str, Any], body: Any = None) -> bytes:
        response = self._send(method, path, query, body, (self._timeout, self._timeout))
        end, read = monotonic() + 2 * self._timeout, bytearray()
        try:
            while chunk := response.read1(1 << 16):
                read += chunk
                if len(read) > _MOST_OCTETS or monotonic() > end:
                    raise _unavailable("an answer too large or too slow")
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise _unavailable(type(err).__name__) from None
        finally:
            response.close()
        if not 200 <= response.status < 300:
            _refuse(response.status)
        return bytes(read)

    def _send(
        self, method: str, path: str, query: Mapping[str, Any], body: Any, timeout: tuple[float, float]
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "kbs"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            client = self._connection()
            client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            url = f"{client.configuration.host}{self._path}{path}{'?' + urlencode(query) if query else ''}"
            answer = client.call_api(method, url, headers, body, _request_timeout=timeout)
        except ApiException as err:
            raise _unavailable(f"status {err.status}") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as err:
            raise _unavailable(type(err).__name__) from None
        return answer.response  # type: ignore[no-any-return]

    def _connection(self) -> ApiClient:
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                configuration = self._configure()
                configuration.retries = False
                configuration.connection_pool_maxsize = 8
                self._client = (os.getpid(), ApiClient(configuration))
            return self._client[1]


def read_secret(document: Any) -> Held:
    """A Secret of the API.

    Raises:
        StorageUnavailable: it is none.
    """
    metadata = _at(document, "metadata", dict)
    name, created = _at(metadata, "name", str), metadata.get("creationTimestamp")
    labels, data = metadata.get("labels") or {}, document.get("data") or {}
    if not isinstance(labels, dict) or not isinstance(data, dict):
        raise _unavailable("garbage")
    try:
        octets = {key: base64.b64decode(text or "", validate=True) for key, text in data.items()}
    except (binascii.Error, TypeError, ValueError):
        raise _unavailable("garbage in place of base64") from None
    ours = labels.get(MANAGED_BY[0]) == MANAGED_BY[1]
    return Held(name, _version(metadata), created if isinstance(created, str) else "", ours, octets)


def _change(line: bytes) -> Change:
    event = _document(line)
    kind, document = event.get("type"), _at(event, "object", dict)
    if kind == "ERROR":
        if document.get("code") == 410:
            raise WatchExpired
        raise _unavailable("the watch ends with an error")
    if kind == "BOOKMARK":
        return Change(_version(_at(document, "metadata", dict)), False, None)
    if kind not in ("ADDED", "MODIFIED", "DELETED"):
        raise _unavailable("an event of another kind")
    held = read_secret(document)
    return Change(held.version, kind == "DELETED", held)


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    pending = bytearray()
    while chunk := response.read1(1 << 16):
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            yield bytes(pending[:end])
            del pending[: end + 1]
        if len(pending) > _MOST_LINE:
            raise _unavailable("an event too large")


def _refuse(status: int) -> None:
    if status == 404:
        raise Absent
    if status == 409:
        raise Conflicted
    if status == 410:
        raise WatchExpired
    if status in (401, 403):
        raise StoreRefuses(f"{status}: the cluster does not allow it to this broker's account")
    if status in (400, 413, 422):
        raise StoreRefuses(f"{status}: the cluster does not accept it; is the Secret immutable, or above 1 MiB?")
    raise _unavailable(f"status {status}")


def _document(raw: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise _unavailable("no JSON") from None
    if not isinstance(document, dict):
        raise _unavailable("no JSON object")
    return document


def _at(document: Mapping[str, Any], member: str, kind: type) -> Any:
    value = document.get(member)
    if not isinstance(value, kind):
        raise _unavailable(f"no member {member}")
    return value


def _version(metadata: Mapping[str, Any]) -> int:
    text = metadata.get("resourceVersion")
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise _unavailable("a resourceVersion that is no number")
    return int(text)


def _unavailable(what: str) -> StorageUnavailable:
    return StorageUnavailable(_GONE, operator_detail=f"the Kubernetes API: {what}")
