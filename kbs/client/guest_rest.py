"""What applications find at 127.0.0.1:8006 inside a confidential guest, answered by a software guest.

Paths, parameters and bodies are those of api-server-rest; every resource and token costs a whole attestation with a
fresh key, as there. Errors are 500 with a text, as there, which goes on with what the broker said. It proves nothing to
anybody: it is for developing applications without hardware.

Only this machine is answered, and no web page: one that a browser here shows could otherwise read secrets by having its
own name point to 127.0.0.1.

Source: guest-components 5.4 to 5.6 and 1.8.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from kbs import __version__, strict_json
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.errors import ClientError, Refused
from kbs.client.guest import Attester, ChallengedAttester, GuestClient
from kbs.client.tee_keys import PrivateKey
from kbs.errors import KbsError
from kbs.protocol import base64url

_REPORT_DATA: Final = 64  # octets; the field that TEEs have for it
_RUNTIME_REGISTER: Final = 4  # CCMR index of RTMR3, where the agent's default PCR 17 is mapped to
_MAX_EVENTS: Final = 5000  # brokers read no log of more than 10 000 entries
_MAX_BODY: Final = 1 << 20
_OCTETS: Final = "application/octet-stream"


class NotHere(Exception):
    """What this guest cannot do; the text is for whoever asked."""


@dataclass(frozen=True, slots=True)
class _Logging:
    """A machine whose log may be extended while somebody else asks it for evidence: log and registers must agree."""

    machine: SoftwareTdx
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        """`kbs.client.guest.Attester`."""
        with self.lock:
            return self.machine.evidence_for(report_data, init_data=init_data)

    def extend(self, domain: str, operation: str, content: str) -> bool:
        """Log one event; False when the log is full."""
        with self.lock:
            if len(self.machine.log.events) >= _MAX_EVENTS:
                return False
            self.machine.log.runtime(_RUNTIME_REGISTER, domain, operation, content)
            return True


class SoftwareGuest:
    """The guest behind the server.

    Args:
        tee: its name.
        machine: one for the whole life of the server: what was added to its event log stays there.
        connect: makes a client with a fresh key, which attests with the machine given.
    """

    def __init__(self, tee: str, machine: Attester, connect: Callable[[Attester], GuestClient]) -> None:
        self.tee = tee
        self._attester: Attester = _Logging(machine) if isinstance(machine, SoftwareTdx) else machine
        self._connect = connect

    def resource(self, path: str) -> bytes:
        """Attest and fetch, as the confidential data hub does for each request.

        Raises:
            ClientError: the broker's no, or that it cannot be reached.
        """
        with self._connect(self._attester) as client:
            return client.get_resource(f"kbs:///{path}")

    def token(self, kind: str | None) -> dict[str, str]:
        """A token, and the key that answers to its bearer are sealed to.

        Raises:
            NotHere: another kind than that of a KBS. ClientError: as `resource`.
        """
        if kind != "kbs":
            raise NotHere("token_type: only `kbs` is there")
        with self._connect(self._attester) as client:
            return {"token": client.attest(), "tee_keypair": _pem(client.key.private_key)}

    def evidence(self, runtime_data: bytes) -> strict_json.Json:
        """Evidence with these octets as its report data.

        Raises:
            NotHere: more than fit, or a TEE that answers challenges only.
        """
        if len(runtime_data) > _REPORT_DATA:
            raise NotHere(
                f"runtime_data: {len(runtime_data)} octets, and report data have {_REPORT_DATA}: send a digest"
            )
        if isinstance(self._attester, ChallengedAttester):
            raise NotHere(f"the TEE {self.tee} answers the challenge of a broker and nothing else; ask for a token")
        return self._attester.evidence_for(runtime_data)

    def log_event(self, domain: str, operation: str, content: str) -> None:
        """Extend the event log by one event of the workload.

        Raises:
            NotHere: the TEE has no register for it, the log is full, or the event would read as another one.
        """
        machine = self._attester
        if not isinstance(machine, _Logging):
            raise NotHere(f"the software TEE {self.tee} has no register for run-time events; tdx has")
        if not domain or not operation or _has_blank(domain) or _has_blank(operation):
            raise NotHere("aael: domain and operation are words without blanks")
        if not content.isprintable():
            raise NotHere("aael: content is one line of text")
        if not machine.extend(domain, operation, content):
            raise NotHere(f"aael: the log has {_MAX_EVENTS} events, and no broker reads many more")


def create_app(guest: SoftwareGuest, features: str = "resource") -> Flask:
    """The server as a WSGI application.

    Args:
        features: what is answered: `resource`, `attestation` or `all`.
    """
    app = Flask("kbs.client.guest_rest", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY
    app.before_request(_refuse_strangers)
    app.register_error_handler(HTTPException, _http_problem)
    for kind in (ClientError, KbsError, NotHere):
        app.register_error_handler(kind, _problem)
    views: dict[str, tuple[str, str, Callable[..., Response]]] = {
        "/info": ("any", "GET", lambda: _json(_info(guest, features))),
        "/cdh/resource/<path:path>": (
            "resource",
            "GET",
            lambda path: Response(guest.resource(path), content_type=_OCTETS),
        ),
        "/aa/token": ("attestation", "GET", lambda: _json(guest.token(request.args.get("token_type")), _OCTETS)),
        "/aa/evidence": ("attestation", "GET", lambda: _json(guest.evidence(_runtime_data()), _OCTETS)),
        "/aa/additional-evidence": ("attestation", "GET", _no_devices),
        "/aa/aael": ("attestation", "POST", lambda: _extend(guest)),
    }
    for path, (feature, method, view) in views.items():
        if features == "all" or feature in ("any", features):
            app.add_url_rule(path, endpoint=path, view_func=view, methods=[method])
    return app


def _info(guest: SoftwareGuest, features: str) -> dict[str, Any]:
    return {"version": __version__, "tee": guest.tee, "additional_tees": [], "feature": features}


def _runtime_data() -> bytes:
    text, encoding = request.args.get("runtime_data"), request.args.get("encoding")
    if text is None:
        raise NotHere("runtime_data is missing")
    if encoding is None:
        return text.encode()
    if encoding != "base64":
        raise NotHere("encoding: `base64` (URL-safe, without padding), or left out for text")
    return base64url.decode(text)


def _no_devices() -> Response:
    """The evidence of devices; a software guest has none, which is answered with nothing."""
    _runtime_data()
    return Response(b"", content_type=_OCTETS)


def _extend(guest: SoftwareGuest) -> Response:
    event = strict_json.decode(request.get_data())
    names = ("domain", "operation", "content")
    if not isinstance(event, dict) or any(not isinstance(event.get(name), str) for name in names):
        raise NotHere('aael: {"domain", "operation", "content"}, all of them strings')
    guest.log_event(*(event[name] for name in names))
    return Response(status=200)


def _refuse_strangers() -> Response | None:
    host = urlsplit(f"//{request.host}").hostname
    origin = request.headers.get("Origin")
    if _is_loopback(request.remote_addr) and _is_loopback(host) and origin is None:
        return None
    return _text(403, "only programs on this machine are answered, at a loopback address")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _problem(err: Exception) -> Response:
    text = str(err)
    if isinstance(err, Refused) and err.problem.decision is not None:
        text += f"\ntry: kbs explain {err.problem.decision}"
    return _text(500, text)


def _http_problem(err: HTTPException) -> Response:
    return _text(err.code or 500, err.name)


def _text(status: int, text: str) -> Response:
    return Response(text + "\n", status, content_type="text/plain; charset=utf-8")


def _json(document: Any, kind: str = "application/json") -> Response:
    return Response(json.dumps(document), content_type=kind)


def _has_blank(text: str) -> bool:
    return not text.isprintable() or any(character.isspace() for character in text)


def _pem(key: PrivateKey) -> str:
    """PKCS #1 for RSA and PKCS #8 for EC, as the agent writes them (guest-components 1.8)."""
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode("ascii")
