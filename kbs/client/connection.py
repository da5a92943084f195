"""HTTP to one broker: kept-alive connections, one trust root, no redirects, no ambient settings."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from kbs.client.errors import ClientMisconfigured, UnexpectedAnswer, Unreachable
from kbs.protocol.target import PREFIX

TIMEOUT: Final = 60.0  # seconds, as the field's clients wait
_KEEP_ALIVE: Final = 4.0  # seconds; brokers close an idle connection after 5, and a request must not meet that
_OK: Final = 200


class Connection:
    """Sends requests to `<base_url>/kbs/v0/…`. Safe from several threads, as `httpx.Client` is.

    Args:
        base_url: `https://host[:port][/prefix]`; a trailing slash does not matter.
        ca_file: PEM of the only roots to trust; None: the system's.
        user_agent: sent with every request.
        timeout: seconds for each of connecting, sending and waiting.
        transport: for tests.

    Raises:
        ClientMisconfigured: no such address, or a file that holds no certificates.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: Path | None,
        user_agent: str,
        timeout: float = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = _checked(base_url)
        self._http = httpx.Client(
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            cookies=CookieJar(
                policy=DefaultCookiePolicy(allowed_domains=[])
            ),  # the one cookie is the caller's business
            verify=_trust(ca_file, self.base_url.scheme if transport is None else "http"),
            timeout=timeout,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=_KEEP_ALIVE),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def send(
        self, method: str, target: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request.

        Args:
            target: path and query below `/kbs/v0/`, percent-encoded.

        Raises:
            Unreachable: no answer, or one cut short.
            ClientMisconfigured: a header that HTTP does not carry.
        """
        url = f"{str(self.base_url).rstrip('/')}{PREFIX}{target}"
        try:
            return self._http.request(method, url, content=content, headers=headers)
        except httpx.LocalProtocolError:  # its text repeats the header, which may be a token
            raise ClientMisconfigured("a header holds characters that HTTP does not carry") from None
        except httpx.TransportError as err:
            raise Unreachable(f"no answer from {self.base_url.host}: {type(err).__name__}: {err}") from err
        except httpx.DecodingError as err:
            raise UnexpectedAnswer("the answer's content encoding does not decode") from err

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_success(response: httpx.Response) -> bool:
    """Success is exactly 200 in this protocol."""
    return response.status_code == _OK


def is_private_path(base_url: httpx.URL) -> bool:
    """Whether what is sent there can be read by nobody on the way: TLS, or this machine's loopback."""
    if base_url.scheme == "https" or base_url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(base_url.host).is_loopback
    except ValueError:
        return False


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as err:
        raise ClientMisconfigured(f"not an address: {err}") from err
    if url.scheme not in ("https", "http") or not url.host or url.query or url.fragment or url.userinfo:
        raise ClientMisconfigured("the broker's address has the form https://host[:port]")
    return url


def _trust(ca_file: Path | None, scheme: str) -> ssl.SSLContext:
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; without roots it would trust nobody
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as err:  # ssl.SSLError, for a file without certificates, is one
        raise ClientMisconfigured(f"{ca_file}: not a readable file of PEM certificates") from err
