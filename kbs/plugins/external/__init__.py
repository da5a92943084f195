"""Plugin `external`: passes requests on to programs of the operator that speak gRPC (kbs-protocol 8.6).

`/kbs/v0/external/<backend>/<path…>`. Who may ask is settled by the settings, before any backend hears of the request:
the methods in `guest_methods` are for attested guests, after the policy, all others for administrators. A backend is
asked whether it wants an administrator (`ValidateAuth`); where it does and the request is a guest's, it is refused.
Answers to guests are always sealed, so `NeedsEncryption` is not asked.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from kbs import config
from kbs.errors import AccessDenied, ConfigInvalid, DependencyFault, ResourceNotFound
from kbs.plugins.external.proto import plugin_pb2, plugin_pb2_grpc
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginContext, PluginRequest
from kbs.secret import Secret

_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WHERE: Final = "plugins.options.external"
_DOWN: Final = "the plugin's backend does not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One program. Files are PEM; the certificate is the broker's own, where the program asks for one."""

    name: str
    endpoint: str
    timeout_ms: int = 5_000
    ca_cert_path: Path | None = None
    client_cert_path: Path | None = None
    client_key_path: Path | None = None
    max_answer_bytes: int = 2 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSettings:
    """Options of the plugin."""

    backends: tuple[BackendSettings, ...]
    guest_methods: tuple[str, ...] = ("GET",)


class ExternalPlugin:
    """Passes requests on. Anything but a clear yes of the backend, in time, is a refusal."""

    blocks = True

    def __init__(self, backends: Mapping[str, _Backend], guest_methods: frozenset[str]) -> None:
        self._backends = backends
        admin = Guard(Access.ADMIN, "plugin.admin")
        self._guards = {each: Guard(Access.TOKEN) if each in guest_methods else admin for each in _METHODS}

    def guards(self) -> Mapping[str, Guard]:
        """As the settings say."""
        return self._guards

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Ask the backend that the first segment names."""
        backend = self._backends.get(request.segments[0]) if request.segments else None
        if backend is None:
            raise ResourceNotFound("no such backend of the plugin external")
        return PluginAnswer(Secret(backend.ask(request)), action=request.method.lower())


class _Backend:
    """One channel, opened when first needed: after the fork of a worker."""

    def __init__(self, settings: BackendSettings, data: Path) -> None:
        self._settings = settings
        self._target, self._credentials = _address(settings, data)
        self._lock = threading.Lock()
        self._stub: Any = None

    def ask(self, request: PluginRequest) -> bytes:
        """The body of the backend's answer.

        Raises:
            AccessDenied: it wants an administrator, or refuses (4xx). ResourceNotFound: 404. DependencyFault: the rest.
        """
        end = monotonic() + self._settings.timeout_ms / 1000
        parts: dict[str, Any] = {
            "body": request.body,
            "query": dict(request.query),
            "path": request.segments[1:],
            "method": request.method,
        }
        stub = self._connected()
        wanted = self._called(stub.ValidateAuth, plugin_pb2.ValidateAuthRequest(**parts), end)
        if wanted.requires_admin_auth and request.guest is not None:
            raise AccessDenied("the plugin's backend refuses", operator_detail=f"{self._name} wants an administrator")
        answer = self._called(stub.Handle, plugin_pb2.PluginRequest(**parts), end)
        if answer.status_code == 0 or 200 <= answer.status_code < 300:
            body: bytes = answer.body
            return body
        detail = f"{self._name} answers with status {answer.status_code}"
        if answer.status_code == 404:
            raise ResourceNotFound("the plugin's backend has no such thing", operator_detail=detail)
        if 400 <= answer.status_code < 500:
            raise AccessDenied("the plugin's backend refuses", operator_detail=detail)
        raise DependencyFault(_DOWN, operator_detail=detail)

    @property
    def _name(self) -> str:
        return f"backend {self._settings.name}"

    def _called(self, call: Any, message: Any, end: float) -> Any:
        try:
            return call(message, timeout=max(0.001, end - monotonic()))
        except grpc.RpcError as err:
            failed: Any = err  # of a call it is a grpc.Call, too, which its type does not say
            code = failed.code()
        name = code.name
        if code is grpc.StatusCode.NOT_FOUND:
            raise ResourceNotFound("the plugin's backend has no such thing", operator_detail=f"{self._name}: {name}")
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
            raise AccessDenied("the plugin's backend refuses", operator_detail=f"{self._name}: {name}")
        raise DependencyFault(_DOWN, operator_detail=f"{self._name}: {name}")

    def _connected(self) -> Any:
        with self._lock:
            if self._stub is None:
                options = (
                    ("grpc.max_receive_message_length", self._settings.max_answer_bytes + 1024),
                    ("grpc.enable_http_proxy", 0),
                    ("grpc.service_config_disable_resolution", 1),
                    ("grpc.enable_retries", 0),
                )
                if self._credentials is None:
                    channel = grpc.insecure_channel(self._target, options)
                else:
                    channel = grpc.secure_channel(self._target, self._credentials, options)
                self._stub = plugin_pb2_grpc.KbsPluginStub(channel)
            return self._stub


def _address(settings: BackendSettings, data: Path) -> tuple[str, grpc.ChannelCredentials | None]:
    where = f"settings: {_WHERE}: backend {settings.name!r}"
    try:
        address = urlsplit(settings.endpoint)
        host, port = address.hostname, address.port
    except ValueError:
        raise ConfigInvalid(f"{where}: endpoint is no address") from None
    if not host or port is None or address.path not in ("", "/") or address.query or address.username:
        raise ConfigInvalid(f"{where}: endpoint: expected https://HOST:PORT, or http://HOST:PORT on this machine")
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    files = (settings.ca_cert_path, settings.client_key_path, settings.client_cert_path)
    if address.scheme == "http" and host in _LOOPBACK and files == (None, None, None):
        return target, None
    if address.scheme != "https" or settings.ca_cert_path is None:
        raise ConfigInvalid(f"{where}: https:// with ca_cert_path, or http:// to this machine without certificates")
    if (settings.client_cert_path is None) != (settings.client_key_path is None):
        raise ConfigInvalid(f"{where}: client_cert_path and client_key_path go together")
    roots, key, chain = (None if path is None else _pem(data / path, where) for path in files)
    return target, grpc.ssl_channel_credentials(roots, key, chain)


def _pem(path: Path, where: str) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as err:
        raise ConfigInvalid(f"{where}: {path}: {err.strerror}") from None
    if b"-----BEGIN " not in text:
        raise ConfigInvalid(f"{where}: {path} is not PEM")
    return text


def build(context: PluginContext) -> ExternalPlugin:
    """Entry point `kbs.plugins: external`. Connects to nothing yet: a backend may start later than the broker.

    Raises:
        ConfigInvalid: no backend, a name twice, an address that secrets must not travel to.
    """
    settings = config.structure(context.options, ExternalSettings, _WHERE)
    names = [each.name for each in settings.backends]
    if not names or len(set(names)) != len(names) or not all(name and "/" not in name for name in names):
        raise ConfigInvalid(f"settings: {_WHERE}.backends: at least one, each with a name of its own, without /")
    if set(settings.guest_methods) - set(_METHODS):
        raise ConfigInvalid(f"settings: {_WHERE}.guest_methods: some of {', '.join(_METHODS)}")
    for each in settings.backends:
        if not 1 <= each.timeout_ms <= 60_000 or not 1 <= each.max_answer_bytes <= 64 << 20:
            raise ConfigInvalid(
                f"settings: {_WHERE}: backend {each.name!r}: timeout_ms or max_answer_bytes out of range"
            )
    backends = {each.name: _Backend(each, context.data) for each in settings.backends}
    return ExternalPlugin(backends, frozenset(settings.guest_methods))
