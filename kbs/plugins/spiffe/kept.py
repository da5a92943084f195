"""The authority that the broker makes for itself, kept sealed in the store for all its processes, and how it changes.

Keys come in generations. A new one is in the bundle at once and signs later, when relying parties have fetched the
bundle again; the old one stays in the bundle until nothing that it signed is valid any more.

Sources: SPIFFE Trust Domain and Bundle sections 4.1.3 and 5.1 (sequence, refresh hint); SPIFFE Federation section 4.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kbs import strict_json
from kbs.clock import Clock
from kbs.errors import StorageUnavailable, VersionConflict
from kbs.plugins.spiffe.authority import BEFORE, Authority, Beside, certificate_pem, key_usage, private_pem
from kbs.storage.model import KeyValueStore, Record
from kbs.tokens.keys import SigningKey, signing_key

NAMESPACE: Final = "spiffe"
_MADE_LIFE: Final = timedelta(days=3650)
_TRIES: Final = 8
_STATES: Final = {-1: "old", 0: "signing", 1: "next"}


@dataclass(frozen=True, slots=True)
class Generation:
    """Keys that sign together. signs_from: the moment since when; verifies_until: None until there is a next one."""

    number: int
    signs_from: datetime
    verifies_until: datetime | None
    ca_key: SigningKey = field(repr=False)
    certificate: x509.Certificate
    jwt_key: SigningKey = field(repr=False)

    def summary(self, state: str) -> Mapping[str, Any]:
        """What administrators see. state: `old`, `signing` or `next`."""
        return {
            "generation": self.number,
            "state": state,
            "signs_from": self.signs_from.isoformat(),
            "verifies_until": None if self.verifies_until is None else self.verifies_until.isoformat(),
            "ca_sha256": self.certificate.fingerprint(hashes.SHA256()).hex(),
            "ca_not_after": self.certificate.not_valid_after_utc.isoformat(),
            "jwt_kid": self.jwt_key.kid,
        }


@dataclass(frozen=True, slots=True)
class Lives:
    """The times of a rotation. svid: the longest that is issued. notice: how long the next keys are in the bundle
    before they sign. ca: after how long keys are rotated unasked; None: never."""

    svid: timedelta
    notice: timedelta
    ca: timedelta | None = None


class KeptAuthority:
    """One authority of all processes. Whoever needs keys first makes them, and the others read them."""

    def __init__(self, domain: str, store: KeyValueStore, clock: Clock, lives: Lives) -> None:
        self._name = f"{domain}/generations"
        self._domain = domain
        self._store = store
        self._clock = clock
        self._lives = lives
        self._lock = threading.Lock()
        self._seen: tuple[int, int, Sequence[Generation]] | None = None  # change token, version, what was read

    def authority(self) -> Authority:
        """The keys that sign now, with the others of the bundle.

        Raises:
            StorageUnavailable: the store, or what it holds is no authority.
        """
        with self._lock:
            version, all_of_them = self._read()
            now, ca = self._clock(), self._lives.ca
            if ca is not None and all_of_them[-1].signs_from + ca <= now:
                try:
                    version, all_of_them = self._rotate(version, all_of_them, at_once=False)
                except VersionConflict:  # another process does it
                    self._seen = None
                    version, all_of_them = self._read()
            return self._authority(version, [each for each in all_of_them if _is_held(each, now)], now)

    def rotate(self, at_once: bool) -> Sequence[Mapping[str, Any]]:
        """Make the next keys; what there is afterwards.

        at_once: they sign now, and nothing that older ones signed verifies any more once relying parties fetch the
        bundle.

        Raises:
            VersionConflict: the last rotation is not over. StorageUnavailable: nothing was changed.
        """
        with self._lock:
            for _ in range(_TRIES):
                version, all_of_them = self._read()
                now = self._clock()
                if not at_once and all_of_them[-1].signs_from > now:
                    until = all_of_them[-1].signs_from.isoformat()
                    raise VersionConflict(f"keys of the last rotation sign from {until} on; rotate again after that")
                try:
                    _, made = self._rotate(version, all_of_them, at_once=at_once)
                except VersionConflict:  # another process: perhaps the same rotation
                    self._seen = None
                    continue
                signing = _signing(made, now).number
                return [each.summary(_STATES[(each.number > signing) - (each.number < signing)]) for each in made]
        raise StorageUnavailable("the keys change all the time", operator_detail="spiffe: a rotation lost each time")

    def _authority(self, version: int, held: Sequence[Generation], now: datetime) -> Authority:
        one = _signing(held, now)
        others = (each for each in held if each is not one)
        beside = tuple(Beside(each.certificate, each.jwt_key.kid, each.jwt_key.jwk()) for each in others)
        return Authority(self._domain, one.ca_key, (one.certificate,), one.jwt_key, beside, one.verifies_until, version)

    def _read(self) -> tuple[int, Sequence[Generation]]:
        """Version of the record and what it holds, made where there is none."""
        token = self._store.change_token()  # before the record: a change meanwhile is seen the next time
        if self._seen is not None and self._seen[0] == token:
            return self._seen[1:]
        record = self._store.get(NAMESPACE, self._name)
        if record is None:
            try:
                version, made = self._write([self._make(1, self._clock())], 0)
            except VersionConflict:  # another process was faster
                record = self._store.get(NAMESPACE, self._name)
            else:
                return version, made
        if record is None:
            raise StorageUnavailable("no identities now", operator_detail="spiffe: the authority was removed meanwhile")
        held = self._seen[2] if self._seen is not None and self._seen[1] == record.version else _opened(record)
        self._seen = (token, record.version, held)
        return record.version, held

    def _rotate(self, version: int, before: Sequence[Generation], *, at_once: bool) -> tuple[int, Sequence[Generation]]:
        now = self._clock()
        if at_once:
            kept: list[Generation] = []
            begins = now
        else:
            begins = now + self._lives.notice
            ends = begins + self._lives.svid
            kept = [replace(each, verifies_until=each.verifies_until or ends) for each in before if _is_held(each, now)]
        return self._write([*kept, self._make(before[-1].number + 1, begins)], version)

    def _make(self, number: int, signs_from: datetime) -> Generation:
        ca, jwt = (signing_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
        return Generation(number, signs_from, None, ca, self._certificate(ca), jwt)

    def _write(self, generations: Sequence[Generation], expected: int) -> tuple[int, Sequence[Generation]]:
        """Replace the record.

        Raises:
            VersionConflict: somebody else did.
        """
        value = strict_json.encode({"generations": [_document(each) for each in generations]})
        meta = {"time": self._clock().isoformat()}
        version = self._store.put(NAMESPACE, self._name, value, meta=meta, expected=expected)
        return version, generations

    def _certificate(self, key: SigningKey) -> x509.Certificate:
        now = self._clock()
        key_id = x509.SubjectKeyIdentifier.from_public_key(key.public)
        # roots of one name are told apart by key identifiers and, where software looks at names alone, by this
        number = x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, key_id.digest.hex())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self._domain[:64]), number])
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{self._domain}")])
        return (
            x509.CertificateBuilder(name, name, key.public, x509.random_serial_number())
            .not_valid_before(now - BEFORE)
            .not_valid_after(now + _MADE_LIFE)
            .add_extension(uri, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(key_cert_sign=True), critical=True)
            .add_extension(key_id, critical=False)
            .sign(key.private, hashes.SHA256())
        )


def _is_held(one: Generation, now: datetime) -> bool:
    """Whether it belongs into the bundle."""
    return one.verifies_until is None or now < one.verifies_until


def _signing(held: Sequence[Generation], now: datetime) -> Generation:
    """The oldest where none signs yet: another machine, whose clock is ahead, has made it."""
    return ([each for each in held if each.signs_from <= now] or held[:1])[-1]


def _document(one: Generation) -> dict[str, Any]:
    return {
        "number": one.number,
        "signs_from": one.signs_from.isoformat(),
        "verifies_until": None if one.verifies_until is None else one.verifies_until.isoformat(),
        "ca_key": _pem(one.ca_key),
        "ca_certificate": certificate_pem(one.certificate),
        "jwt_key": _pem(one.jwt_key),
    }


def _opened(record: Record) -> Sequence[Generation]:
    document: Any = strict_json.decode(record.value)
    found = [_generation(each) for each in document["generations"]]
    if any(each.certificate.public_key() != each.ca_key.public for each in found):
        raise StorageUnavailable("no identities now", operator_detail="spiffe: a CA kept is for another key")
    return found


def _generation(document: Mapping[str, Any]) -> Generation:
    until = document["verifies_until"]
    return Generation(
        document["number"],
        datetime.fromisoformat(document["signs_from"]),
        None if until is None else datetime.fromisoformat(until),
        signing_key(_private(document["ca_key"].encode("ascii"))),
        x509.load_pem_x509_certificate(document["ca_certificate"].encode("ascii")),
        signing_key(_private(document["jwt_key"].encode("ascii"))),
    )


def _pem(key: SigningKey) -> str:
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    return private_pem(key.private).decode("ascii")


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    private = load_pem_private_key(pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private
