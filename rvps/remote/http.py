"""One request to a provider in another process: bounded in time and size, and every outcome named.

Neither redirects nor the environment's proxies are followed: the token goes to the one address that the settings name.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final
from urllib.parse import quote

import httpx

from rvps.errors import NotStated, ProviderUnavailable, SettingsUnacceptable, StatementUnacceptable
from rvps.strict_json import NotStrictJson, decode

_V0: Final = "/kbs/v0/"
_TOKEN_LENGTHS: Final = range(16, 16_385)
_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 2.0  # between two pieces of an answer
_FORWARD_SECONDS: Final = 30.0  # for one whole answer to an administrator
_SENDER_AT_FAULT: Final = frozenset({400, 413, 422})
MAX_ANSWER: Final = 64 << 20
"""Octets of one answer once unpacked; 100 000 values are about 12 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """Where the provider is and how fresh its answers must be.

    token: text of its `broker-token`, or of an admin token of a broker. ca_file: PEM of the only roots to trust.
    poll_seconds: between two looks. max_age_seconds: how long ago the newest answer may have been asked for.
    """

    url: str
    token: str
    ca_file: Path | None = None
    poll_seconds: float = 0.5
    max_age_seconds: float = 10.0

    def __repr__(self) -> str:
        return f"RemoteSettings({self.url})"


class Link:
    """The connections to one provider. Safe from several threads.

    Args:
        transport: in place of the network (tests).
        ticks: seconds of a clock that never goes back.

    Raises:
        SettingsUnacceptable: a token that is none, or roots that do not load.
    """

    def __init__(
        self, settings: RemoteSettings, transport: httpx.BaseTransport | None, ticks: Callable[[], float]
    ) -> None:
        self._http = _client(settings, transport)
        self._ticks = ticks
        self._ended = Event()

    def forward(
        self,
        method: str,
        target: str,
        content: bytes | None,
        *,
        issuer: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """One administrator's request, answered 200.

        Raises:
            StatementUnacceptable, NotStated: as the provider says; the text is its own.
            ProviderUnavailable: everything else. A change may have been made all the same.
        """
        extra = dict(headers or {})
        if issuer is not None:
            extra["RVPS-On-Behalf-Of"] = quote(issuer, safe=":")
        status, _, body = self.call(method, target, content, extra, _FORWARD_SECONDS)
        if status == 200:
            return body
        if status == 404:
            raise NotStated(_detail(body))
        if status in _SENDER_AT_FAULT:
            raise StatementUnacceptable(_detail(body))
        raise ProviderUnavailable(f"the reference value provider answered {status}")

    def call(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and the unpacked body of whatever is answered within `seconds`.

        Raises:
            ProviderUnavailable: nothing is, or more than `MAX_ANSWER`.
        """
        deadline = self._ticks() + seconds
        try:
            with self._http.stream(method, _V0 + target, content=content, headers=dict(headers)) as response:
                return response.status_code, response.headers, self._read(response, deadline)
        except httpx.HTTPError as err:
            raise ProviderUnavailable(f"no answer ({type(err).__name__})") from err

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        """The body, unpacked piece by piece so that a small answer cannot become a huge one.

        Source: RFC 9110 section 8.4; RFC 1952.
        """
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise ProviderUnavailable("it answered in an encoding that was not asked for")
        unpacking = zlib.decompressobj(wbits=31) if coding == "gzip" else None
        found = bytearray()
        for piece in response.iter_raw():
            if self._ticks() > deadline or self._ended.is_set():
                raise ProviderUnavailable("its answer takes too long")
            try:
                found += piece if unpacking is None else unpacking.decompress(piece, MAX_ANSWER + 1 - len(found))
            except zlib.error as err:
                raise ProviderUnavailable("its answer does not unpack") from err
            if len(found) > MAX_ANSWER or (unpacking is not None and unpacking.unconsumed_tail):
                raise ProviderUnavailable(f"its answer has more than {MAX_ANSWER} octets")
        if unpacking is not None and not unpacking.eof:
            raise ProviderUnavailable("its answer is cut off")
        return bytes(found)

    def end(self) -> None:
        """Give up what is being read."""
        self._ended.set()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def _client(settings: RemoteSettings, transport: httpx.BaseTransport | None) -> httpx.Client:
    token = settings.token
    if len(token) not in _TOKEN_LENGTHS or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsUnacceptable("the token file of the reference value provider holds no token")
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except OSError as err:
        raise SettingsUnacceptable(f"{settings.ca_file}: not a readable file of PEM certificates") from err
    return httpx.Client(
        base_url=settings.url,
        verify=context,
        transport=transport,
        trust_env=False,
        timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "gzip"},
    )


def _detail(body: bytes) -> str:
    """The provider's own words: it is authenticated, and its texts are safe to show."""
    try:
        problem = decode(body, max_bytes=64 << 10)
        detail = problem["detail"]
    except (NotStrictJson, KeyError, TypeError):
        return "the reference value provider refused it without a reason"
    return str(detail)[:1000]
