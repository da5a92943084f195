"""The connection to an OPA server: `opa-python-client` over TCP or a Unix socket, with an end to every wait.

The only importer of `opa_client`. Whoever reaches that server can replace policies and data: keep it private, or use
its own authorisation with a token.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import requests
from opa_client import OpaClient
from opa_client.errors import DeleteDataError, DeletePolicyError, PolicyNotFoundError, RegoParseError
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy.outcome import broken

_ANSWER_LIMIT: Final = 8 << 20
_FAILURES: Final = 5  # in a row, before the server is left alone
_REST: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class OpaServerSettings:
    """Where the server is.

    socket: path of its Unix socket, or None for `host` and `port`.
    token: sent as Bearer token, when the server asks for one.
    timeout: seconds for one whole answer.
    """

    host: str = "127.0.0.1"
    port: int = 8181
    socket: Path | None = None
    tls_ca: Path | None = None
    token: str | None = None
    timeout: float = 1.5


class OpaLink:
    """Calls of one OPA server. Safe from several threads; after a fork the child connects anew."""

    def __init__(self, settings: OpaServerSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._local = threading.local()
        self._lock = threading.Lock()
        self._failures = 0
        self._rest_until = 0.0

    def query(self, package: str, rule: str, document: Any) -> Any:
        """The rule's value over an input document; None when it has none.

        Raises:
            PolicyBroken: the evaluation itself failed, or does not end while the server is well.
            PolicyEngineUnavailable: no answer, a late one, or one that is not OPA's.
        """
        try:
            answer = self._call(lambda client: client.query_rule(document, package, rule))
        except PolicyEngineUnavailable as err:
            if not isinstance(err.__cause__, requests.ReadTimeout) or not self._is_well():
                raise
            self._succeeded()  # others need not wait for what one policy does
            raise broken(
                f"the evaluation took more than {self._settings.timeout} s, or said too much, while the OPA server "
                "answers other questions"
            ) from err
        if not isinstance(answer, dict) or not answer.keys() <= {"result", "decision_id", "warning"}:
            raise _unavailable("the OPA server's answer has an unknown form")
        return answer.get("result")

    def put_policy(self, name: str, text: str) -> Any:
        """Load a module and return its syntax tree as the server has it. Raises as `query`."""
        self._call(lambda client: client.update_policy_from_string(text, name, rego_compat=False))
        answer = self._call(lambda client: client.get_policy(name))
        result = answer.get("result") if isinstance(answer, dict) else None
        return result.get("ast") if isinstance(result, dict) else None

    def put_data(self, path: str, value: Mapping[str, Any]) -> None:
        """Set a data document. Raises as `query`."""
        self._call(lambda client: client.update_or_create_data(dict(value), path))

    def forget(self, policies: list[str], path: str | None = None) -> None:
        """Remove modules and their data, as far as they are there. Raises as `query`."""
        for name in policies:
            self._call(partial(_delete_policy, name))
        if path is not None:
            self._call(partial(_delete_data, path))

    def _call(self, use: Callable[[Any], Any]) -> Any:
        with self._lock:
            if self._failures >= _FAILURES and self._monotonic() < self._rest_until:
                raise _unavailable("the OPA server failed several times in a row and is left alone for a moment")
        try:
            answer = use(self._client())
        except requests.HTTPError as err:
            if _is_evaluation_error(err.response):
                self._succeeded()
                raise broken(f"the OPA server: {_message(err.response)}") from err
            raise self._failed(f"the OPA server answered with an error: {str(err)[:200]}") from err
        except RegoParseError as err:
            self._succeeded()
            raise broken(f"the OPA server refuses the policy: {str(err)[:500]}") from err
        except PolicyNotFoundError as err:
            raise self._failed("the OPA server lost a policy just loaded") from err
        except PolicyBroken:
            raise
        except Exception as err:  # the wall around the client: no answer is ever taken for a yes
            raise self._failed(f"the OPA server does not answer: {type(err).__name__}: {str(err)[:200]}") from err
        self._succeeded()
        return answer

    def _is_well(self) -> bool:
        """Whether the server answers at once what costs it nothing."""
        return bool(self._connect().check_health())

    def _succeeded(self) -> None:
        with self._lock:
            self._failures = 0

    def _failed(self, why: str) -> PolicyEngineUnavailable:
        with self._lock:
            self._failures += 1
            self._rest_until = self._monotonic() + _REST
        self._local = threading.local()
        return _unavailable(why)

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._connect()
        return client

    def _connect(self) -> Any:
        wanted = self._settings
        client = OpaClient(
            host="localhost" if wanted.socket else wanted.host,
            port=wanted.port,
            ssl=str(wanted.tls_ca) if wanted.tls_ca and not wanted.socket else False,
            token=wanted.token,
            retries=0,
            timeout=wanted.timeout,
        )
        session = client._session
        session.trust_env = False  # no proxy and no .netrc: settings come from the settings
        session.mount("http://", _BoundedAdapter(wanted.timeout, wanted.socket, self._monotonic))
        session.mount("https://", _BoundedAdapter(wanted.timeout, None, self._monotonic))
        return client


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path rather than to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout, maxsize=1)
        self._path, self._seconds = path, timeout

    def _new_conn(self) -> HTTPConnection:
        return _UnixConnection(self._path, self._seconds)


class _BoundedAdapter(HTTPAdapter):
    """Reads the whole answer before a deadline and below a size; requests' own time-out is per octet received."""

    def __init__(self, timeout: float, path: Path | None, monotonic: Callable[[], float]) -> None:
        super().__init__(max_retries=0)
        self._seconds = timeout
        self._monotonic = monotonic
        self._pool = _UnixPool(path, timeout) if path is not None else None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The Unix socket's pool, or what requests would choose."""
        return self._pool or super().get_connection_with_tls_context(*args, **kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send, and have all of the answer in memory on return."""
        deadline = self._monotonic() + self._seconds
        response = super().send(request, *args, **{**kwargs, "stream": True})
        body = bytearray()
        while chunk := response.raw.read1(65536, decode_content=True):
            body += chunk
            if len(body) > _ANSWER_LIMIT or self._monotonic() > deadline:
                response.close()
                raise requests.ReadTimeout("the answer is too long or too slow")
        response._content, response._content_consumed = bytes(body), True
        response.raw.release_conn()
        return response


def _is_evaluation_error(response: Any) -> bool:
    body = _json(response)
    errors = body.get("errors") if isinstance(body, dict) else None
    return (
        isinstance(errors, list)
        and bool(errors)
        and all(isinstance(error, dict) and str(error.get("code", "")).startswith("eval_") for error in errors)
        and all(error["code"] != "eval_cancel_error" for error in errors)
    )


def _message(response: Any) -> str:
    return str([error.get("message") for error in _json(response)["errors"]])[:500]


def _json(response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _delete_policy(name: str, client: Any) -> None:
    with suppress(DeletePolicyError):  # absent already
        client.delete_policy(name)


def _delete_data(path: str, client: Any) -> None:
    with suppress(DeleteDataError):  # absent already
        client.delete_data(path)


def _unavailable(why: str) -> PolicyEngineUnavailable:
    return PolicyEngineUnavailable("the policy engine is not available", operator_detail=why)
