"""HTTP to one repository of a registry: authentication, redirects, limits. Knows nothing of images.

Source: OCI distribution-spec 1.1; distribution's token authentication specification.
"""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import LocationRefused, RegistryFailed
from kbs.images.registry_address import RegistryAddress
from kbs.images.registry_auth import Challenge, Credentials, read_challenge, read_token
from kbs.secret import Secret

_TIMEOUT: Final = 30.0  # seconds for each of connecting, sending and waiting
_GRACE: Final = 60.0  # seconds that an answer may take however slow it is
_SLOWEST: Final = 1 << 10  # bytes a second, on average, after that
_MAX_SMALL: Final = 1 << 20  # bytes of a token or an error
_REDIRECTS: Final = 5
_UNAUTHORIZED: Final = 401
_ERROR: Final = 400
_REDIRECTED: Final = (301, 302, 303, 307, 308)
_MAX_TEXT: Final = 300  # characters of a registry's text that are shown

Monotonic = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How registries are asked.

    auth_file: docker's or podman's. ca_file: PEM of the only roots to trust; None: the system's. insecure_http: plain
    HTTP, which is refused for other machines than this one. transport, monotonic: for tests.
    """

    auth_file: Path | None = None
    ca_file: Path | None = None
    insecure_http: bool = False
    transport: httpx.BaseTransport | None = None
    monotonic: Monotonic = time.monotonic


class RegistryClient:
    """Asks one repository, with one token at a time. Not for several threads.

    Raises:
        LocationRefused: plain HTTP to another machine. RegistryFailed: a CA file that holds no certificates.
    """

    def __init__(
        self, address: RegistryAddress, options: RegistryOptions, credentials: Credentials, scope: str
    ) -> None:
        if options.insecure_http and not address.is_loopback:
            raise LocationRefused(f"{address.host}: plain HTTP is for registries on this machine; others need TLS")
        scheme = "http" if options.insecure_http else "https"
        self.address = address
        self._base = httpx.URL(f"{scheme}://{address.api_host}")
        self._credentials = credentials
        self._scope = f"repository:{address.name}:{scope}"
        self._authorization: Secret | None = None
        self._monotonic = options.monotonic
        self._http = httpx.Client(
            headers={"User-Agent": "kbs-image/0.1", "Accept-Encoding": "identity"},
            verify=_trust(options.ca_file, scheme if options.transport is None else "http"),
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            transport=options.transport,
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @contextmanager
    def stream(
        self,
        method: str,
        target: str | httpx.URL,
        *,
        content: Sequence[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        redirects: bool = False,
    ) -> Iterator[httpx.Response]:
        """One request, answered for as long as the body is read; asked again once where it has to authenticate.

        Args:
            content: the body in pieces.
            target: below `/v2/<name>/`, or an address that this registry gave, as `upload_url` checks it.
            redirects: follow them, without credentials. Elsewhere they are refused.

        Raises:
            RegistryFailed: no answer, one cut short, a redirect to where none may lead, 401 after authenticating.
        """
        url = target if isinstance(target, httpx.URL) else self._base.join(f"/v2/{self.address.name}/{target}")
        response = self._send(method, url, content, self._with_authorization(headers))
        try:
            if response.status_code == _UNAUTHORIZED:
                challenge = read_challenge(response.headers.get_list("WWW-Authenticate"))
                response.close()
                self._authenticate(challenge)
                response = self._send(method, url, content, self._with_authorization(headers))
                if response.status_code == _UNAUTHORIZED:
                    raise self.failure(response, "the credentials are not accepted, or not for this repository")
            for _ in range(_REDIRECTS):
                if response.status_code not in _REDIRECTED:
                    break
                following = self._following(response, redirects=redirects)
                response.close()
                response = self._send(method, following, None, headers or {})
            else:
                raise RegistryFailed(f"{self._base.host}: more than {_REDIRECTS} redirects")
            with self._wall():
                yield response
        finally:
            response.close()

    def pieces(self, response: httpx.Response) -> Iterator[bytes]:
        """The body as it is on the wire.

        Raises:
            RegistryFailed: cut short, or too slow to be meant seriously.
        """
        begun, received = self._monotonic(), 0
        with self._wall():
            for piece in response.iter_raw():  # as they come: to fill larger ones would hide a trickle
                received += len(piece)
                took = self._monotonic() - begun
                if took > _GRACE and received < (took - _GRACE) * _SLOWEST:
                    raise RegistryFailed(f"{self._base.host}: {received} bytes in {took:.0f} seconds; given up")
                yield piece

    def small(self, response: httpx.Response, most: int = _MAX_SMALL) -> bytes:
        """A short body at once.

        Raises:
            RegistryFailed: more than `most` bytes, or as in `pieces`.
        """
        found = bytearray()
        for piece in self.pieces(response):
            found += piece
            if len(found) > most:
                raise RegistryFailed(f"{self._base.host}: an answer of more than {most} bytes")
        return bytes(found)

    def upload_url(self, response: httpx.Response) -> httpx.URL:
        """Where an upload goes on: the `Location` of an answer, in this registry.

        Raises:
            RegistryFailed: it leads elsewhere, where the credentials do not belong.
        """
        try:
            url = response.url.join(response.headers["Location"])
        except (KeyError, httpx.InvalidURL):
            raise RegistryFailed(f"{self._base.host}: an upload without a place to go on at") from None
        if url.host != self._base.host:
            raise RegistryFailed(f"{self._base.host}: sends uploads to {_text(url.host)}, which is not followed")
        # Behind a proxy that ends TLS registries name themselves by scheme and port that nobody outside can reach.
        return url.copy_with(scheme=self._base.scheme, port=self._base.port, fragment=None)

    def failure(self, response: httpx.Response, what: str) -> RegistryFailed:
        """What a refusal says, as an error: status, code and message of the registry, cut to a line."""
        detail = ""
        try:
            errors = strict_json.decode(self.small(response))["errors"]
            detail = "; ".join(f"{each['code']}: {each.get('message', '')}" for each in errors[:3])
        except (KbsError, RegistryFailed, KeyError, TypeError, AttributeError, httpx.StreamError):
            detail = response.reason_phrase
        text = f"{self.address}: {what}: {response.status_code} {_text(detail)}".rstrip()
        step = "name an auth file with --auth-file FILE" if response.status_code in (_UNAUTHORIZED, 403) else None
        return RegistryFailed(text, next_step=step)

    def _send(
        self, method: str, url: httpx.URL, content: Sequence[bytes] | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        with self._wall():
            length = {} if content is None else {"Content-Length": str(sum(map(len, content)))}
            # Pieces, and not one large body: of that, httpcore would copy the rest after each packet.
            body = None if content is None else iter(content)
            request = self._http.build_request(method, url, content=body, headers={**headers, **length})
            return self._http.send(request, stream=True)

    def _with_authorization(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        found = dict(headers or {})
        if self._authorization is not None:
            found["Authorization"] = self._authorization.reveal().decode("ascii")
        return found

    def _authenticate(self, challenge: Challenge | None) -> None:
        basic = self._credentials.basic
        if challenge is None:
            raise RegistryFailed(f"{self._base.host}: 401 without saying how to authenticate")
        if challenge.scheme == "basic":
            if basic is None:
                raise RegistryFailed(
                    f"{self._base.host}: asks for a name and a password",
                    next_step="name an auth file with --auth-file FILE",
                )
            self._authorization = _basic(basic)
            return
        self._authorization = Secret(b"Bearer " + self._token(challenge).reveal())

    def _token(self, challenge: Challenge) -> Secret:
        try:
            realm = httpx.URL(challenge.parameters["realm"])
        except (KeyError, httpx.InvalidURL):
            raise RegistryFailed(f"{self._base.host}: names no token service") from None
        same = (realm.scheme, realm.host) == (self._base.scheme, self._base.host)
        if realm.scheme != "https" and not same:
            raise RegistryFailed(f"{self._base.host}: its token service is not reached over https")
        named = {"service": challenge.parameters.get("service", ""), "scope": self._scope}
        credentials = self._credentials
        if credentials.identity is not None:
            form = {**named, "grant_type": "refresh_token", "client_id": "kbs-image"}
            form["refresh_token"] = credentials.identity.reveal().decode()
            content = [str(httpx.QueryParams(form)).encode()]
            response = self._send("POST", realm, content, {"Content-Type": "application/x-www-form-urlencoded"})
        else:
            headers = (
                {} if credentials.basic is None else {"Authorization": _basic(credentials.basic).reveal().decode()}
            )
            response = self._send("GET", realm.copy_merge_params(named), None, headers)
        try:
            if response.status_code >= _REDIRECTED[0]:
                raise self.failure(response, "the token service refuses")
            return read_token(self.small(response))
        finally:
            response.close()

    def _following(self, response: httpx.Response, *, redirects: bool) -> httpx.URL:
        if not redirects:
            raise RegistryFailed(f"{self._base.host}: a redirect where none belongs ({response.status_code})")
        try:
            url = response.url.join(response.headers["Location"])
        except (KeyError, httpx.InvalidURL):
            raise RegistryFailed(f"{self._base.host}: a redirect to nowhere") from None
        if url.scheme != "https" and (url.scheme, url.host) != (self._base.scheme, self._base.host):
            raise RegistryFailed(f"{self._base.host}: redirects to {_text(url.host)}, and not over https")
        return url

    @contextmanager
    def _wall(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise RegistryFailed(f"{self._base.host}: no answer within {_TIMEOUT:.0f} seconds") from None
        except httpx.TransportError as err:
            text = f"{self._base.host}: {_text(str(err)) or type(err).__name__}"
            raise RegistryFailed(text, next_step=self._step(str(err))) from None

    def _step(self, text: str) -> str | None:
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return "name the roots to trust with --ca-file FILE"
        if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
            return "a registry on this machine without TLS: --insecure-http"
        return None


def _basic(pair: Secret) -> Secret:
    return Secret(b"Basic " + base64.b64encode(pair.reveal()))


def _text(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:_MAX_TEXT])


def _trust(ca_file: Path | None, scheme: str) -> ssl.SSLContext:
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; without roots it would trust nobody
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError:  # ssl.SSLError, for a file without certificates, is one
        raise RegistryFailed(f"{ca_file}: not a readable file of PEM certificates") from None
