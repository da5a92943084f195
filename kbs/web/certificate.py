"""The certificate that TLS listeners show, and its replacement while they serve.

Files are read again when they change (a Kubernetes Secret's mount swaps a symbolic link; cert-manager renews by doing
so): handshakes from then on get the new certificate, open connections go on. Files that do not go together, or do not
load, change nothing: the one before stays until they do.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from kbs.errors import ConfigInvalid

_ALPN: Final = ("http/1.1",)
_MAX_FILE: Final = 256 << 10  # octets; Kubernetes' own limit for a Secret is 1 MiB

_Identity = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One certificate with its key, as TLS uses it. expires: seconds since 1970, the earliest of the chain."""

    context: ssl.SSLContext
    expires: float
    fingerprint: str  # SHA-256 of the leaf, hex


@dataclass(frozen=True, slots=True)
class Change:
    """What a look at changed files came to. problem: why they are not used; None: they are."""

    loaded: Loaded
    problem: str | None


class ServedCertificate:
    """One pair of files, the context for listeners, and what they show now.

    Not to be shared between threads: `look` belongs to the thread that accepts connections.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """
        certificate: PEM, leaf first. key: PEM, not encrypted.

        Raises:
            ConfigInvalid: they do not load, or do not go together.
        """
        self._files = (certificate, key)
        self._seen = self._identity()
        self._now = load(certificate, key)
        self.context: Final = self._now.context
        """For listeners; stays the same object."""

    @property
    def loaded(self) -> Loaded:
        """What new connections get."""
        return self._now

    def look(self) -> Change | None:
        """Read the files if they changed since the last look; None: they did not, which two `stat` calls tell."""
        identity = self._identity()
        if identity == self._seen:
            return None
        self._seen = identity  # taken before reading: what changes while we read is seen by the next look
        try:
            self._now = load(*self._files)
        except ConfigInvalid as err:
            return Change(self._now, str(err))
        self.context.sni_callback = self._switch
        return Change(self._now, None)

    def _switch(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL asks in every handshake, with and without a server name."""
        del name, context
        connection.context = self._now.context

    def _identity(self) -> _Identity | None:
        """Which files the names lead to. None: one of them is not there."""
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def load(certificate: Path, key: Path) -> Loaded:
    """Read a certificate with its chain, and its key.

    Raises:
        ConfigInvalid: not readable, not PEM, an encrypted key, or the key of another certificate.
    """
    try:
        with certificate.open("rb") as file:
            chain = x509.load_pem_x509_certificates(file.read(_MAX_FILE))
    except OSError as err:
        raise ConfigInvalid(f"TLS certificate {certificate}: {err.strerror}") from None
    except ValueError:
        raise ConfigInvalid(f"TLS certificate {certificate}: no certificates in PEM") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([*_ALPN])
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # never asks at a terminal
    except ssl.SSLError as err:
        why = "is for another certificate" if err.reason == "KEY_VALUES_MISMATCH" else "is no plain PEM private key"
        raise ConfigInvalid(f"TLS key {key}: {why} (certificate {certificate})") from None
    except OSError as err:
        raise ConfigInvalid(f"TLS key {key}: {err.strerror}") from None
    expires = min(each.not_valid_after_utc for each in chain).timestamp()
    return Loaded(context, expires, chain[0].fingerprint(SHA256()).hex())
