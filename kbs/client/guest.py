"""A guest: attests itself and opens what is released to it, request for request as the field's guests do.

Source: KBS protocol 2, 3, 4 and 12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable
from urllib.parse import quote

import httpx

from kbs import strict_json
from kbs.attestation.init_data import parse_init_data
from kbs.client.connection import TIMEOUT, Connection, is_private_path, is_success
from kbs.client.errors import ClientMisconfigured, Refused, UnexpectedAnswer, refusal
from kbs.client.old_guests import GENERATIONS, open_old_form
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.errors import KbsError
from kbs.identity.model import HEADER as POD_TOKEN_HEADER
from kbs.identity.model import MAX_TOKEN as POD_TOKEN_SIZE
from kbs.protocol import jwe
from kbs.protocol.rcar import Challenge
from kbs.protocol.runtime_data import HashAlgorithm, device_runtime_data, digest, primary_runtime_data
from kbs.protocol.tee import Tee

USER_AGENT: Final = "attestation-agent-kbs-client/0.1.0"
VERSION: Final = "0.4.0"
COOKIE: Final = "kbs-session-id"

_ROUNDS: Final = 3
_UNAUTHORIZED: Final = 401
_SUPPORTED_HASHES: Final = ("sha256", "sha384", "sha512", "sm3")
_COOKIE: Final = re.compile(rf"{COOKIE}=([^;,\s]*)")
_JSON: Final = {"Content-Type": "application/json"}


class Attester(Protocol):
    """Makes evidence of one TEE."""

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> strict_json.Json:
        """Evidence bound to `report_data`, the digest before it is fitted to the TEE's field, and to the digest of the
        init data where the TEE can carry it."""


@runtime_checkable
class ChallengedAttester(Attester, Protocol):
    """Of a TEE whose evidence answers the challenge itself, and not only binds it (KBS protocol 2.7)."""

    def evidence_for_challenge(
        self, challenge: str, report_data: bytes, *, init_data: bytes | None = None
    ) -> strict_json.Json:
        """Evidence that answers `challenge`, the nonce of the Challenge message, bound to `report_data`."""


class GuestClient:
    """One guest with one key and one session. Not for several threads at once: the session is state.

    Args:
        base_url: the broker's.
        ca_file: PEM of the only roots to trust; None: the system's.
        tee: name of the primary TEE.
        attester: makes its evidence; default: the software TEE.
        key: its TEE key pair; default: a fresh one on P-256.
        init_data: TEXT of the init-data document, sent as it is.
        devices: attesters of additional TEEs, by name.
        pod_token_file: projected service-account token of its Pod, read anew for each resource (the kubelet
            renews it) and sent beside whatever else authorises it.
        version: the protocol version it speaks, 0.4.0 or a name of `kbs.client.old_guests.GENERATIONS`. Any other text
            is said as it is, by a guest of 0.4.0.

    Raises:
        ClientMisconfigured: no such address; init data or devices, which guests before 0.4.0 do not have; a pod token
            that would travel in the clear.

    Methods raise `ClientError`: `Refused` and its classes for a no, `Unreachable`, `UnexpectedAnswer`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: Path | None = None,
        tee: str = Tee.SAMPLE,
        attester: Attester | None = None,
        key: TeeKeyPair | None = None,
        init_data: str | None = None,
        devices: Mapping[str, Attester] | None = None,
        pod_token_file: Path | None = None,
        version: str = VERSION,
        user_agent: str = USER_AGENT,
        timeout: float = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._old = GENERATIONS.get(version)
        self.key = key or TeeKeyPair.generate(KeyKind.EC_P256 if self._old is None else self._old.key)
        if self._old is not None and (init_data is not None or devices):
            raise ClientMisconfigured(f"guests of protocol {self._old.version} have neither init data nor devices")
        self.cookie: str | None = None
        self._tee = str(tee)
        self._attester: Attester = attester or SampleAttester()
        self._init_data = init_data
        self._init_data_digest = _init_data_digest(init_data)
        self._devices = dict(devices or {})
        self._version = version
        self._connection = Connection(
            base_url, ca_file=ca_file, user_agent=user_agent, timeout=timeout, transport=transport
        )
        self._pod_token_file = pod_token_file
        if pod_token_file is not None and not is_private_path(self._connection.base_url):
            raise ClientMisconfigured("a pod token over plain HTTP could be read on the way: use https://")

    def attest(self) -> str:
        """One handshake; the attestation token (a JWT, whose signature is not checked here)."""
        return self.submit(self.attestation_for(self.challenge()))

    def challenge(self) -> Challenge:
        """`POST auth`: begin a handshake."""
        message: dict[str, strict_json.Json] = {
            "version": self._version,
            "tee": self._tee,
            "extra-params": {"supported-hash-algorithms": list(_SUPPORTED_HASHES)},
        }
        if self._old is not None:
            message = self._old.request(self._tee)
        response = self._connection.send("POST", "auth", content=strict_json.encode(message), headers=_JSON)
        answer = self._object(response, "challenge")
        nonce = answer.get("nonce")
        if not isinstance(nonce, str) or "extra-params" not in answer:
            raise UnexpectedAnswer("the challenge lacks `nonce` or `extra-params`")
        self._keep_cookie(response)
        return Challenge(nonce, answer["extra-params"])

    def attestation_for(self, challenge: Challenge) -> bytes:
        """The body of `POST attest`: evidence of every TEE, bound to the challenge and to this guest's key."""
        if self._old is not None:
            key = self.key.public.members
            report_data = self._old.report_data(challenge.nonce, key, challenge.extra_params)
            return strict_json.encode(self._old.attestation(key, self._primary_evidence(challenge, report_data)))
        algorithm = _selected_hash(challenge)
        device_digest = digest(device_runtime_data(challenge.nonce, self.key.public), algorithm)
        devices = {tee: attester.evidence_for(device_digest) for tee, attester in self._devices.items()}
        additional = strict_json.encode(devices).decode() if devices else ""
        primary_digest = digest(primary_runtime_data(challenge.nonce, self.key.public, additional), algorithm)
        evidence = self._primary_evidence(challenge, primary_digest)
        init_data = None if self._init_data is None else {"format": "toml", "body": self._init_data}
        return strict_json.encode(
            {
                "init-data": init_data,
                "runtime-data": {"nonce": challenge.nonce, "tee-pubkey": dict(self.key.public.members)},
                "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
            }
        )

    def submit(self, body: bytes) -> str:
        """`POST attest` with a body of `attestation_for`; the token."""
        response = self._connection.send("POST", "attest", content=body, headers={**_JSON, **self._cookie_header()})
        token = self._object(response, "answer to the attestation").get("token")
        if not isinstance(token, str):
            raise UnexpectedAnswer("the answer to the attestation lacks `token`")
        self._keep_cookie(response)
        return token

    def get_resource(self, path: str, *, token: str | None = None) -> bytes:
        """Fetch and open one resource.

        Asks with the cookie first; while the answer is 401, attests and asks again, three rounds at most. With a token
        (passport mode) it asks once, with that alone.

        Args:
            path: `repository/type/tag`, or `kbs:///repository/type/tag`, or `kbs+<plugin>:///path?query`.

        Raises:
            Refused: the broker's last no.
            UnexpectedAnswer: also an answer that is not sealed to this guest's key.
            ClientMisconfigured: a path that is none, or no pod token in its file.
        """
        target = resource_target(path)
        if token is not None:
            headers = {"Authorization": f"Bearer {token}", **self._pod_token_header()}
            return self._opened(self._connection.send("GET", target, headers=headers))
        last: Exception | None = None
        for _ in range(_ROUNDS):
            headers = {**self._cookie_header(), **self._pod_token_header()}
            response = self._connection.send("GET", target, headers=headers)
            if response.status_code != _UNAUTHORIZED:
                return self._opened(response)
            last = refusal(response)
            if not isinstance(last, Refused):
                raise last
            self.attest()
        assert last is not None
        raise last

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _primary_evidence(self, challenge: Challenge, report_data: bytes) -> strict_json.Json:
        init_data = self._init_data_digest
        if isinstance(self._attester, ChallengedAttester):
            return self._attester.evidence_for_challenge(challenge.nonce, report_data, init_data=init_data)
        return self._attester.evidence_for(report_data, init_data=init_data)

    def _opened(self, response: httpx.Response) -> bytes:
        if not is_success(response):
            raise refusal(response)
        if self._old is not None and self._old.opens_old_form:
            return open_old_form(self.key.private_key, response.content)
        try:
            return jwe.open_sealed(self.key.private_key, response.content)
        except KbsError as err:
            raise UnexpectedAnswer(f"the answer does not open with this guest's key: {err}") from err

    def _object(self, response: httpx.Response, what: str) -> dict[str, strict_json.Json]:
        if not is_success(response):
            raise refusal(response)
        try:
            value = strict_json.decode(response.content)
        except KbsError as err:
            raise UnexpectedAnswer(f"the {what} does not decode: {err}") from err
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"the {what} is not a JSON object")
        return value

    def _keep_cookie(self, response: httpx.Response) -> None:
        # Its expiry is the broker's business: an expired one is answered with 401, which attests again.
        for header in response.headers.get_list("Set-Cookie"):
            if found := _COOKIE.match(header):
                self.cookie = found[1]

    def _cookie_header(self) -> dict[str, str]:
        return {} if self.cookie is None else {"Cookie": f"{COOKIE}={self.cookie}"}

    def _pod_token_header(self) -> dict[str, str]:
        if self._pod_token_file is None:
            return {}
        try:
            with self._pod_token_file.open("rb") as file:
                raw = file.read(POD_TOKEN_SIZE + 2)  # more than one, with a line end, is none
            token = raw.decode("ascii").strip()
        except OSError as err:
            raise ClientMisconfigured(f"{self._pod_token_file}: {err.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not 0 < len(token) <= POD_TOKEN_SIZE or len(token.split()) != 1:
            raise ClientMisconfigured(f"{self._pod_token_file}: no service-account token")
        return {POD_TOKEN_HEADER: token}


def resource_target(path: str) -> str:
    """The request target below `/kbs/v0/` for a resource path or URI (KBS protocol 12.4).

    Raises:
        ClientMisconfigured: another scheme, or a `.` or `..` segment, which an HTTP library would fold away.
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        plugin, rest = "resource", path.removeprefix("/")
    elif scheme == "kbs" or scheme.startswith("kbs+"):
        plugin, rest = scheme.removeprefix("kbs").removeprefix("+") or "resource", rest.partition("/")[2]
    else:
        raise ClientMisconfigured(f"{scheme}: resources have addresses like kbs:///repository/type/tag")
    rest, question, query = rest.partition("?")
    if not {".", ".."}.isdisjoint(rest.split("/")):
        raise ClientMisconfigured("a resource path has no segment `.` or `..`")
    return f"{plugin}/{quote(rest, safe='/%:@!$&()*+,=~')}{question}{quote(query, safe='/%:@!$&()*+,=~')}"


def _selected_hash(challenge: Challenge) -> HashAlgorithm:
    extra = challenge.extra_params
    name = extra.get("selected-hash-algorithm", "sha384") if isinstance(extra, dict) else "sha384"
    try:
        return HashAlgorithm(name.lower() if isinstance(name, str) else name)
    except ValueError:
        raise UnexpectedAnswer("the challenge selects a hash algorithm that is not known here") from None


def _init_data_digest(init_data: str | None) -> bytes | None:
    if init_data is None:
        return None
    try:
        return parse_init_data(init_data).digest
    except KbsError as err:
        raise ClientMisconfigured(str(err)) from err
