"""Pod tokens verified by the API server of their cluster: `POST /apis/authentication.k8s.io/v1/tokenreviews`.

It knows what a signature cannot: that the Pod, its service account and its node are still there. What it answers is
held against the token's own claims, so that no other kind of credential of that cluster passes for a Pod's token. One
small request: an HTTP client does, the large client library is not needed.

The API server belongs to whoever runs the cluster, and may hang: few questions at a time, short ones, and a pause after
one without an answer, so that it does not take the threads in which other guests' evidence is judged.

Source: Kubernetes API reference, TokenReview v1.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import httpx

from kbs import strict_json
from kbs.errors import ConfigInvalid, PeerFault, PodIdentityUnavailable, PodTokenRejected
from kbs.identity.claims import Expected, read_identity
from kbs.identity.model import Checked, PodIdentity, PodToken

_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_EXTRA: Final = "authentication.kubernetes.io/"
_MAX_ANSWER: Final = 128 << 10  # octets: the token comes back in it
_MAX_CREDENTIAL: Final = 16 << 10  # octets
_MAX_KEPT: Final = 1024  # answers
_AT_ONCE: Final = 2  # questions
_PATIENCE: Final = 0.25  # seconds to wait for one of them to end
_PAUSE: Final = 2.0  # seconds after a question without an answer


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where to ask, and as whom.

    ca_file: PEM of the only roots to trust; None: the system's. token_file: credential, read anew for each question.
    """

    url: str
    ca_file: Path | None
    token_file: Path
    timeout: float


class ReviewedCluster:
    """`kbs.identity.model.Cluster` on the cluster's API server.

    Args:
        keep: seconds that a good answer is used, never beyond the token's `exp`. A refusal is not kept.
        most: answers that are kept, the newest.
        ticks: a monotonic clock in seconds.

    Raises:
        ConfigInvalid: no certificates in `ca_file`.
    """

    blocks = True

    def __init__(
        self,
        expected: Expected,
        server: ApiServer,
        keep: float,
        *,
        most: int = _MAX_KEPT,
        ticks: Callable[[], float] = monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name, self.issuer, self.audience = expected.cluster, expected.issuer, expected.audience
        self._expected = expected
        self._server = server
        self._keep = keep
        self._most = most
        self._ticks = ticks
        self._transport = transport
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, PodIdentity]] = OrderedDict()
        self._paused_until = 0.0
        self._client: tuple[int, httpx.Client] | None = None
        self._trust = _trust(expected.cluster, server.ca_file)

    def verify(self, token: PodToken, now: float) -> PodIdentity:
        """See `kbs.identity.model.Cluster.verify`. What the claims alone refuse is not asked about."""
        digest = hashlib.sha256(token.text.encode("ascii")).digest()
        found = self._recall(digest, now)
        if found is not None:
            return found
        claimed = read_identity(token, self._expected, now, Checked.REVIEW)
        asked_at = self._ticks()
        status = self._ask(token.text)
        _compare(status, claimed)
        with self._lock:
            self._kept[digest] = (asked_at + self._keep, claimed)
            self._kept.move_to_end(digest)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return claimed

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and client[0] == os.getpid():
            client[1].close()

    def _recall(self, digest: bytes, now: float) -> PodIdentity | None:
        with self._lock:
            found = self._kept.get(digest)
            if found is None:
                return None
            until, identity = found
            if self._ticks() < until and now < identity.expires:
                return identity
            del self._kept[digest]
            return None

    def _ask(self, token: str) -> Mapping[str, Any]:
        """The `status` of a review."""
        if self._ticks() < self._paused_until:
            raise _unavailable("it did not answer a moment ago")
        if not self._turns.acquire(timeout=_PATIENCE):
            raise _unavailable(f"{_AT_ONCE} questions wait for it already")
        try:
            code, body = self._post(token)
        except (httpx.HTTPError, OSError) as err:
            self._paused_until = self._ticks() + _PAUSE
            # nothing was sent yet where there is no connection; other texts might hold what was
            words = f": {err}" if isinstance(err, httpx.ConnectError | OSError) else ""
            raise _unavailable(f"{type(err).__name__}{words}") from None
        finally:
            self._turns.release()
        if code not in (httpx.codes.OK, httpx.codes.CREATED):
            advice = "; is token_file of an account that may create tokenreviews?" if code in (401, 403) else ""
            raise _unavailable(f"status {code}{advice}")
        try:
            document = strict_json.decode(body)
        except PeerFault:
            raise _unavailable("an answer that is no JSON") from None
        status = document.get("status") if isinstance(document, dict) else None
        if not isinstance(status, dict):
            raise _unavailable("an answer that is no TokenReview")
        return status

    def _post(self, token: str) -> tuple[int, bytes]:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        }
        headers = {"Authorization": f"Bearer {self._credential()}", "Content-Type": "application/json"}
        end = self._ticks() + self._server.timeout
        body = bytearray()
        with self._http().stream("POST", _PATH, content=strict_json.encode(review), headers=headers) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise httpx.ReadError("packed")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER or self._ticks() > end:
                    raise httpx.ReadError("too large or too slow")
            return response.status_code, bytes(body)

    def _credential(self) -> str:
        with self._server.token_file.open("rb") as file:
            raw = file.read(_MAX_CREDENTIAL + 1)
        text = raw.decode("ascii", "replace").strip()
        if not text or len(raw) > _MAX_CREDENTIAL or not text.isascii() or not text.isprintable() or " " in text:
            raise _unavailable("token_file holds no token")
        return text

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                client = httpx.Client(
                    base_url=self._server.url,
                    verify=self._trust,
                    timeout=self._server.timeout,
                    limits=httpx.Limits(max_connections=_AT_ONCE, keepalive_expiry=30.0),
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "kbs"},
                    follow_redirects=False,
                    trust_env=False,
                    transport=self._transport,
                )
                self._client = (os.getpid(), client)
            return self._client[1]


def _compare(status: Mapping[str, Any], claimed: PodIdentity) -> None:
    """Whether the API server means this very Pod, and means it for us.

    An authenticator that knows of no audiences leaves `audiences` out: such a credential is not for us. The rest
    says that the service-account authenticator took it, and read it as we do.
    """
    if status.get("authenticated") is not True:
        words = status.get("error")
        shown = "".join(filter(str.isprintable, words))[:300] if isinstance(words, str) else "no reason given"
        raise PodTokenRejected("pod token is refused by its cluster", operator_detail=f"{claimed.cluster}: {shown}")
    user = status.get("user")
    extra = user.get("extra") if isinstance(user, dict) else None
    if not isinstance(user, dict) or not isinstance(extra, dict) or status.get("audiences") != list(claimed.audiences):
        raise _another(claimed)
    account = f"system:serviceaccount:{claimed.namespace}:{claimed.service_account}"
    expected: dict[str, Any] = {
        f"{_EXTRA}pod-name": [claimed.pod],
        f"{_EXTRA}pod-uid": [claimed.pod_uid],
    }
    for name, value in (("node-name", claimed.node), ("credential-id", claimed.token_id)):
        if value is not None and f"{_EXTRA}{name}" in extra:  # absent before 1.29
            expected[_EXTRA + name] = [value if name == "node-name" else f"JTI={value}"]
    said = {name: extra.get(name) for name in expected}
    if (user.get("username"), user.get("uid")) != (account, claimed.service_account_uid) or said != expected:
        raise _another(claimed)


def _another(claimed: PodIdentity) -> PodTokenRejected:
    detail = f"{claimed.cluster}: the review is of another subject, or not for this audience"
    return PodTokenRejected("pod token is refused by its cluster", operator_detail=detail)


def _unavailable(why: str) -> PodIdentityUnavailable:
    text = "the pod token's cluster does not answer"
    return PodIdentityUnavailable(text, operator_detail=f"TokenReview: {why}")


def _trust(name: str, ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as err:
        raise ConfigInvalid(f"identity.kubernetes {name}: {ca_file}: not a readable file of PEM certificates") from err
