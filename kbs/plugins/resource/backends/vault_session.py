"""Talking to Vault or OpenBao: address, TLS, log-in, deadlines, and what its refusals mean.

Nothing of the process's environment counts (VAULT_ADDR, VAULT_TOKEN, proxies); redirects are not followed (threat-model
P-NET-1). Tokens, log-in answers and secrets stay out of errors: of a failure only its kind is told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import hvac
import requests
import urllib3
from hvac import exceptions
from requests.adapters import HTTPAdapter

from kbs.errors import ConfigInvalid, StorageUnavailable
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from kbs.secret import Secret

_T = TypeVar("_T")
_MAX_ANSWER: Final = 12 << 20  # octets: 2 MiB as an array of numbers take up to 8 MiB, and the envelope comes on top
_LOGIN_PAUSE: Final = 10.0  # seconds between log-ins because of a 403
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_GONE: Final = "the store of this resource does not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoleSettings:
    """Log-in by AppRole."""

    role_id: str
    secret_id_file: Path
    mount: str = "approle"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """Log-in by the token of the broker's own service account."""

    role: str
    jwt_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: str = "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server is and who the broker is there. Exactly one way to log in."""

    url: str
    namespace: str | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 5.0
    token_file: Path | None = None
    approle: AppRoleSettings | None = None
    kubernetes: KubernetesSettings | None = None


def check_server(server: ServerSettings, where: str) -> None:
    """Refuse an address that a token must not travel to, and anything but one way to log in.

    Raises:
        ConfigInvalid: the text names the setting.
    """
    try:
        address = urlsplit(server.url)
        host, _ = address.hostname, address.port
    except ValueError:
        raise ConfigInvalid(f"settings: {where}.url is no address") from None
    plain = address.scheme == "http" and host in _LOOPBACK
    if not host or not (address.scheme == "https" or plain) or address.username or address.query or address.fragment:
        raise ConfigInvalid(f"settings: {where}.url: https://HOST:PORT, or http:// to this machine: a token travels")
    if [server.token_file, server.approle, server.kubernetes].count(None) != 2:
        raise ConfigInvalid(f"settings: {where}: exactly one of token_file, approle and kubernetes")
    if not 0 < server.timeout_seconds <= 60:
        raise ConfigInvalid(f"settings: {where}.timeout_seconds: more than 0, at most 60")


@dataclass(frozen=True, slots=True)
class _Login:
    """A token, and the tick from which another is fetched."""

    token: Secret = field(repr=False)
    until: float | None


class VaultSession:
    """One server. Logs in when first asked, again before the lease ends, and once more after a 403."""

    def __init__(self, server: ServerSettings, context: StoreContext) -> None:
        check_server(server, context.where)
        self._server = server
        self._data = context.data
        self._ticks = context.ticks
        self._lock = threading.Lock()
        self._login: _Login | None = None
        self._last_login = 0.0
        session = requests.Session()
        session.trust_env = False
        session.verify = True if server.ca_file is None else str(context.data / server.ca_file)
        adapter = _Bounded(server.timeout_seconds)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        self._session = session

    def ask(self, question: Callable[[hvac.Client], _T]) -> _T:
        """Ask with a token. `question` may raise what hvac raises.

        Raises:
            StorageUnavailable: no answer in time, 5xx, sealed, too many requests, garbage; log-in refused.
            StoreRefuses: 403 with a fresh token. hvac.exceptions.InvalidPath, InvalidRequest: for the caller to read.
        """
        with self._lock:
            login = self._current()
        try:
            return self._asked(question, login)
        except exceptions.Forbidden:
            with self._lock:
                again = self._again(login)
            if again is None:
                raise StoreRefuses("403: the store's policy does not allow it to this broker") from None
        try:
            return self._asked(question, again)
        except exceptions.Forbidden:
            raise StoreRefuses("403: the store's policy does not allow it to this broker") from None

    def _asked(self, question: Callable[[hvac.Client], _T], login: _Login) -> _T:
        return self._guarded(lambda: question(self._client(login.token)))

    def _client(self, token: Secret | None) -> hvac.Client:
        return hvac.Client(
            url=self._server.url,
            token="" if token is None else token.reveal().decode("ascii"),
            timeout=self._server.timeout_seconds,
            allow_redirects=False,
            session=self._session,
            namespace=self._server.namespace,
            verify=self._session.verify,
        )

    def _guarded(self, do: Callable[[], _T]) -> _T:
        try:
            return do()
        except (exceptions.InvalidPath, exceptions.InvalidRequest, exceptions.Forbidden):
            raise
        except exceptions.VaultError as err:
            raise StorageUnavailable(_GONE, operator_detail=f"Vault answers {type(err).__name__}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as err:
            raise StorageUnavailable(_GONE, operator_detail=f"Vault cannot be asked: {type(err).__name__}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise StorageUnavailable(_GONE, operator_detail=f"Vault answers garbage: {type(err).__name__}") from None

    def _current(self) -> _Login:
        login = self._login
        if login is None or (login.until is not None and self._ticks() >= login.until):
            login = self._login = self._log_in()
        return login

    def _again(self, refused: _Login) -> _Login | None:
        """Another log-in than the refused one; None when that one is too young for that to help."""
        if self._login is not refused:
            return self._login
        if self._ticks() - self._last_login < _LOGIN_PAUSE:
            return None
        self._login = self._log_in()
        return self._login

    def _log_in(self) -> _Login:
        self._last_login = self._ticks()
        server = self._server
        if server.token_file is not None:
            return _Login(self._read(server.token_file), None)
        try:
            answer = self._guarded(lambda: self._log_in_by(server))
        except (exceptions.InvalidPath, exceptions.InvalidRequest, exceptions.Forbidden) as err:
            detail = f"Vault refuses the broker's log-in: {type(err).__name__}"
            raise StorageUnavailable(_GONE, operator_detail=detail) from None
        return self._read_login(answer)

    def _log_in_by(self, server: ServerSettings) -> Any:
        auth = self._client(None).auth
        if server.approle is not None:
            role = server.approle
            secret_id = self._read(role.secret_id_file).reveal().decode("ascii")
            return auth.approle.login(role.role_id, secret_id, use_token=False, mount_point=role.mount)
        assert server.kubernetes is not None
        jwt = self._read(server.kubernetes.jwt_file).reveal().decode("ascii")
        return auth.kubernetes.login(server.kubernetes.role, jwt, use_token=False, mount_point=server.kubernetes.mount)

    def _read_login(self, answer: Any) -> _Login:
        auth = answer.get("auth") if isinstance(answer, Mapping) else None
        token = auth.get("client_token") if isinstance(auth, Mapping) else None
        lease = auth.get("lease_duration") if isinstance(auth, Mapping) else None
        if not isinstance(token, str) or not _is_token(token.encode()) or type(lease) is not int or lease < 0:
            raise StorageUnavailable(_GONE, operator_detail="Vault answers garbage to the broker's log-in")
        return _Login(Secret(token.encode()), None if lease == 0 else self._ticks() + lease * 2 / 3)

    def _read(self, path: Path) -> Secret:
        """A credential in a file, read anew at each log-in: others renew it."""
        place = self._data / path
        try:
            text = place.read_bytes().strip()
        except OSError as err:
            raise StorageUnavailable(_GONE, operator_detail=f"{place}: {err.strerror}") from None
        if not _is_token(text):
            raise StorageUnavailable(_GONE, operator_detail=f"{place} holds no credential of printable ASCII")
        return Secret(text)


def _is_token(text: bytes) -> bool:
    return 0 < len(text) <= 1 << 16 and all(0x21 <= octet < 0x7F for octet in text)


class _Bounded(HTTPAdapter):
    """Reads answers whole, up to a size and within a time."""

    def __init__(self, timeout: float) -> None:
        self._limit = timeout
        super().__init__(max_retries=0, pool_maxsize=16)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        end = monotonic() + self._limit
        response = super().send(request, *args, **(options | {"stream": True}))
        body = bytearray()
        try:
            for chunk in response.raw.stream(1 << 16, decode_content=True):
                body += chunk
                if len(body) > _MAX_ANSWER:
                    raise requests.exceptions.ContentDecodingError("too large")
                if monotonic() > end:
                    raise requests.exceptions.ReadTimeout("too slow")
        except BaseException:
            response.close()
            raise
        response._content = bytes(body)  # as requests itself keeps what it read
        return response
