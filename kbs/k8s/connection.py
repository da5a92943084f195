"""The API server over the network: where it is comes from a kubeconfig or from the Pod, requests are plain JSON.

The client library reads configurations, renews credentials and opens connections; its object types are not used, for
they know neither our kinds nor metadata-only lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException

from kbs.errors import ConfigInvalid
from kbs.k8s.api import (
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiForbidden,
    ApiInvalid,
    ApiKind,
    ApiNotFound,
    ApiUnreachable,
    Change,
    Listed,
    Object,
)

_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=15.0)
_WATCH_GRACE: Final = 15.0  # seconds beyond what the server was asked to hold a watch open
_CONNECTIONS: Final = 64
_PAGE: Final = 500
_MERGE_PATCH: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_MAX_LINE: Final = 8 << 20  # octets of one change; objects are below 2 MiB
_OK: Final = 300
_ERRORS: Final[Mapping[int, type[ApiError]]] = {
    401: ApiForbidden,
    403: ApiForbidden,
    404: ApiNotFound,
    409: ApiConflict,
    410: ApiExpired,
    429: ApiUnreachable,
}
_FAULT: Final = 500


class Connection:
    """Implements `kbs.k8s.api.Api`."""

    def __init__(self, configuration: Configuration, *, user_agent: str) -> None:
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._client = ApiClient(configuration)
        self._client.user_agent = user_agent
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager

    def get(self, kind: ApiKind, namespace: str, name: str) -> Object:
        """As `Api.get`."""
        return self._object("GET", kind, namespace, name)

    def list(self, kind: ApiKind, namespace: str | None, *, metadata_only: bool = False) -> Listed:
        """As `Api.list`; in pages."""
        items: list[Object] = []
        query = {"limit": str(_PAGE)}
        while True:
            found = self._object("GET", kind, namespace, query=query, accept=_accept("List", metadata_only))
            items += found.get("items") or ()
            metadata = found.get("metadata") or {}
            if not metadata.get("continue"):
                return Listed(tuple(items), str(metadata.get("resourceVersion", "")))
            query = {"limit": str(_PAGE), "continue": metadata["continue"]}

    def watch(
        self,
        kind: ApiKind,
        namespace: str | None,
        resource_version: str,
        *,
        metadata_only: bool = False,
        seconds: int = 300,
    ) -> Iterator[Change]:
        """As `Api.watch`."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        timeout = urllib3.Timeout(connect=5.0, read=seconds + _WATCH_GRACE)
        where = _where("watch", kind, namespace)
        with self._request(
            "GET", _path(kind, namespace), where, query=query, accept=_accept("", metadata_only), timeout=timeout
        ) as response:
            for line in _lines(response, where):
                yield _change(line, where)

    def create(self, kind: ApiKind, namespace: str, body: Object) -> Object:
        """As `Api.create`."""
        return self._object("POST", kind, namespace, body=body)

    def replace(self, kind: ApiKind, namespace: str, name: str, body: Object) -> Object:
        """As `Api.replace`."""
        return self._object("PUT", kind, namespace, name, body=body)

    def patch(
        self, kind: ApiKind, namespace: str, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        """As `Api.patch`."""
        return self._object("PATCH", kind, namespace, name, body=body, subresource=subresource, content=_MERGE_PATCH)

    def delete(self, kind: ApiKind, namespace: str, name: str) -> None:
        """As `Api.delete`."""
        self._object("DELETE", kind, namespace, name)

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def _object(
        self,
        method: str,
        kind: ApiKind,
        namespace: str | None,
        name: str | None = None,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        subresource: str | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        where = _where(method.lower(), kind, namespace, name, subresource)
        path = _path(kind, namespace, name, subresource)
        with self._request(method, path, where, body=body, query=query, content=content, accept=accept) as response:
            return _decoded(_read(response, where), where)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        where: str,
        *,
        accept: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        timeout: urllib3.Timeout = _TIMEOUT,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer that is a success; it is given back to the pool, or its connection ended when it was not read."""
        headers = {"Accept": accept, "User-Agent": self._client.user_agent}
        self._client.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
        raw = None
        if body is not None:
            raw, headers["Content-Type"] = json.dumps(body).encode(), content
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._pool.request(
                method, url, body=raw, headers=headers, timeout=timeout, retries=False, preload_content=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise ApiUnreachable(f"{where}: the API server does not answer: {type(err).__name__}") from err
        try:
            if response.status >= _OK:
                raise _refusal(response, where)
            yield response
        finally:
            response.close()
            response.release_conn()


def connect(kubeconfig: Path | None, *, user_agent: str, context: str | None = None) -> Connection:
    """A connection by a kubeconfig file, or by what a Pod is given.

    Raises:
        ConfigInvalid: no such file, nothing usable in it, or not inside a Pod.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(str(kubeconfig), context=context, client_configuration=configuration)
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as err:
        place = "this Pod" if kubeconfig is None else str(kubeconfig)
        hint = "; outside a cluster, name a file with --kubeconfig" if kubeconfig is None else ""
        raise ConfigInvalid(f"no way to an API server from {place} ({type(err).__name__}){hint}") from None
    return Connection(configuration, user_agent=user_agent)


def _path(kind: ApiKind, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    parts = [kind.path]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if subresource is not None:
        parts.append(subresource)
    return "/".join(parts)


def _where(
    verb: str, kind: ApiKind, namespace: str | None, name: str | None = None, subresource: str | None = None
) -> str:
    what = f"{kind.label}/{subresource}" if subresource else kind.label
    named = f" {name}" if name else ""
    return f"{verb} {what}{named} in {'all namespaces' if namespace is None else namespace}"


def _accept(suffix: str, metadata_only: bool) -> str:
    return f"{_METADATA.format(suffix)},application/json" if metadata_only else "application/json"


def _read(response: urllib3.BaseHTTPResponse, where: str) -> bytes:
    try:
        return response.read()
    except (urllib3.exceptions.HTTPError, OSError) as err:
        raise ApiUnreachable(f"{where}: the answer was cut short") from err


def _decoded(raw: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        raise ApiUnreachable(f"{where}: the answer is no JSON") from None
    if not isinstance(found, dict):
        raise ApiUnreachable(f"{where}: the answer is no object")
    return found


def _refusal(response: urllib3.BaseHTTPResponse, where: str) -> ApiError:
    """Of what the API server says, only its `reason` and the fields at fault: its text may repeat what was sent."""
    status = response.status
    kind = _ERRORS.get(status) or (ApiUnreachable if status >= _FAULT else ApiInvalid)
    try:
        said = _decoded(_read(response, where), where)
    except ApiUnreachable:
        return kind(f"{where}: {status}")
    details = said.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    fields = sorted({str(each.get("field")) for each in causes or () if isinstance(each, dict) and each.get("field")})
    return kind(
        f"{where}: {status} {said.get('reason') or ''}".rstrip() + (f" ({', '.join(fields)})" if fields else "")
    )


def _lines(response: urllib3.BaseHTTPResponse, where: str) -> Iterator[bytes]:
    pending = b""
    try:
        while chunk := response.read1(1 << 16):
            *whole, pending = (pending + chunk).split(b"\n")
            yield from (line for line in whole if line.strip())
            if len(pending) > _MAX_LINE:
                raise ApiUnreachable(f"{where}: a change of more than {_MAX_LINE} bytes")
    except (urllib3.exceptions.HTTPError, OSError) as err:
        raise ApiUnreachable(f"{where}: the watch was cut: {type(err).__name__}") from err


def _change(line: bytes, where: str) -> Change:
    found = _decoded(line, where)
    kind, changed = found.get("type"), found.get("object")
    if not isinstance(kind, str) or not isinstance(changed, dict):
        raise ApiUnreachable(f"{where}: a change of another form")
    if kind == "ERROR":
        code = changed.get("code")
        failure = _ERRORS.get(code, ApiUnreachable) if isinstance(code, int) else ApiUnreachable
        raise failure(f"{where}: {code} {changed.get('reason') or ''}".rstrip())
    return Change(kind, changed)
