"""The way out to vendors: HTTPS to listed hosts, no redirects, bounded in time, size and number.

Addresses are built by endorsers from settings and checked parts only; nothing in evidence or in an answer is followed.
An allowed host must show a certificate for its name, so an answer from an inner address is refused by TLS.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import httpx

from kbs.clock import Clock
from kbs.errors import ConfigInvalid, EndorsementsUnavailable

MAX_ANSWER: Final = 2 * 1024 * 1024  # bytes
_ABSENT: Final = (400, 404)  # AMD's KDS answers 400 to a chip or TCB version that never was
_MAX_HEADER: Final = 64 * 1024  # bytes of one header's value; a chain of three certificates has about 6 KiB
_TOO_MANY: Final = 429
_OPENS_AFTER: Final = 5  # failures in a row
_OPEN_FOR: Final = timedelta(seconds=30)
_LONGEST_OPEN: Final = timedelta(minutes=5)
_RETRIES: Final = 10.0  # in stock at most
_RETRY_SHARE: Final = 0.1  # of a retry, earned by each request that went well


class Breaker:
    """Keeps away from a host that fails, and lets retries be a small share of the requests. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: datetime | None = None
        self._retries = _RETRIES

    def require_closed(self) -> None:
        """Refuse at once while open. After that time one caller may try; the others go on being refused.

        Raises:
            EndorsementsUnavailable.
        """
        now = self._clock()
        with self._lock:
            if self._open_until is None:
                return
            if now < self._open_until:
                raise EndorsementsUnavailable("a vendor service is not answering")
            self._open_until = now + _OPEN_FOR

    def succeeded(self) -> None:
        """Close."""
        with self._lock:
            self._failures = 0
            self._open_until = None
            self._retries = min(_RETRIES, self._retries + _RETRY_SHARE)

    def failed(self, wait: timedelta | None = None) -> None:
        """Count a failure; open after several in a row, or for as long as the host asked to be left alone."""
        with self._lock:
            self._failures += 1
            if wait is not None or self._failures >= _OPENS_AFTER:
                self._open_until = self._clock() + min(max(wait or _OPEN_FOR, _OPEN_FOR), _LONGEST_OPEN)

    def take_retry(self) -> bool:
        """Whether one more retry is in the budget; if so it is spent."""
        with self._lock:
            if self._retries < 1 or self._open_until is not None:
                return False
            self._retries -= 1
            return True


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 answer. `headers`: names in lower case."""

    body: bytes
    headers: Mapping[str, str]


class HttpsFetcher:
    """Fetches from listed hosts. Threads may share it."""

    def __init__(self, client: httpx.Client, hosts: Iterable[str], clock: Clock, *, total: timedelta) -> None:
        """Take a client with its own connect and read time-outs.

        Args:
            client: follows no redirects here, whatever its settings.
            hosts: `host:port` that may be asked, lower case.
            total: longest time that one answer may take, a retry included.
        """
        self._client = client
        self._clock = clock
        self._total = total
        self._breakers = {host: Breaker(clock) for host in hosts}

    def get(self, url: str) -> bytes | None:
        """The body of a 200 answer, or None when the host says that there is no such thing. Raises as `fetch`."""
        answer = self.fetch(url)
        return None if answer is None else answer.body

    def fetch(self, url: str) -> Answer | None:
        """A 200 answer, or None when the host says that there is no such thing.

        Raises:
            EndorsementsUnavailable: no answer, an error, a redirect, too large or too slow.
            ConfigInvalid: an address that is not HTTPS to a listed host.
        """
        breaker = self._breaker(url)
        breaker.require_closed()
        deadline = self._clock() + self._total
        try:
            return self._attempt(url, breaker, deadline)
        except EndorsementsUnavailable:
            if self._clock() > deadline or not breaker.take_retry():
                raise
        return self._attempt(url, breaker, deadline)

    def _breaker(self, url: str) -> Breaker:
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as err:
            raise ConfigInvalid("address of an endorsement is no URL") from err
        if parts.scheme != "https" or parts.userinfo or _authority(parts) not in self._breakers:
            raise ConfigInvalid("address of an endorsement is not HTTPS to an allowed host")
        return self._breakers[_authority(parts)]

    def _attempt(self, url: str, breaker: Breaker, deadline: datetime) -> Answer | None:
        try:
            # Unpacking is not allowed: a small packed answer could be a large one.
            headers = {"Accept-Encoding": "identity"}
            with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
                found = self._read(response, deadline)
        except (httpx.HTTPError, httpx.StreamError, EndorsementsUnavailable) as err:
            limited = isinstance(err, _Limited)
            breaker.failed(err.wait if isinstance(err, _Limited) else None)
            detail = f"{httpx.URL(url).host}: {type(err).__name__} {err}"
            text = "a vendor service asks to wait" if limited else "a vendor service did not answer"
            raise EndorsementsUnavailable(text, operator_detail=detail) from err
        breaker.succeeded()
        return found

    def _read(self, response: httpx.Response, deadline: datetime) -> Answer | None:
        if response.status_code in _ABSENT:
            return None
        if response.status_code == _TOO_MANY:
            raise _Limited(response.headers.get("Retry-After", ""))
        if response.status_code != httpx.codes.OK:
            raise EndorsementsUnavailable(f"status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise EndorsementsUnavailable("packed answer")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise EndorsementsUnavailable("answer too large")
            if self._clock() > deadline:
                raise EndorsementsUnavailable("answer too slow")
        headers = {name.lower(): value for name, value in response.headers.items()}
        if any(len(value) > _MAX_HEADER for value in headers.values()):
            raise EndorsementsUnavailable("answer too large")
        return Answer(bytes(body), headers)


class _Limited(EndorsementsUnavailable):
    """The host counts requests and asks to wait."""

    def __init__(self, retry_after: str) -> None:
        super().__init__("too many requests")
        is_number = retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6
        self.wait = timedelta(seconds=int(retry_after)) if is_number else _OPEN_FOR


def fetcher_for(
    base_urls: Iterable[str],
    timeout_seconds: float,
    clock: Clock,
    client: httpx.Client | None = None,
    ca_file: Path | None = None,
) -> HttpsFetcher:
    """A fetcher that may ask the hosts of these addresses and no others.

    Args:
        ca_file: PEM certificates of authorities to accept from these hosts beside the system's, e.g. of a private
            cache.

    Raises:
        ConfigInvalid: an address that is not plain HTTPS, or no certificates in that file.
    """
    hosts = [_host(url) for url in base_urls]
    if client is None:
        client = httpx.Client(
            timeout=timeout_seconds,
            trust_env=False,
            limits=httpx.Limits(max_connections=8),
            verify=_trust(ca_file),
        )
    return HttpsFetcher(client, hosts, clock, total=timedelta(seconds=3 * timeout_seconds))


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as err:
            raise ConfigInvalid(f"{ca_file.name}: no PEM certificates of authorities") from err
    return context


def _host(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as err:
        raise ConfigInvalid("address of a vendor service is no URL") from err
    is_plain = parts.scheme == "https" and bool(parts.host) and 0 < (parts.port or 443) < 1 << 16
    if not is_plain or parts.userinfo or parts.query or parts.fragment:
        raise ConfigInvalid("address of a vendor service is not plain HTTPS")
    return _authority(parts)


def _authority(parts: httpx.URL) -> str:
    return f"{parts.host}:{parts.port or 443}"
