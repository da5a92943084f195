"""What an operator provides for Secure Execution: host-key documents, what vouches for them, and image headers.

A folder, laid out as the reference implementation's, or the same things within the anchors of a test root:

    hkds/          host-key documents, one for each machine
    certs/         IBM's signing-key certificate and DigiCert's CA
    crls/          revocation lists of IBM's signing service, DigiCert's CA and DigiCert's root
    hdr/           headers of the images that may run (or the images)
    root_ca.crt    only where the root is not DigiCert Trusted Root G4

Certificates and lists are PEM or DER. Files may change at any time and are then read again.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.verifiers.se.arcb import MAX_HOST_KEYS
from kbs.attestation.verifiers.se.host_keys import HostKeyDocuments
from kbs.attestation.verifiers.se.image_header import ImageHeader, read_image_header
from kbs.attestation.x509 import X509_ERRORS, load_certificate, load_crl
from kbs.errors import ConfigInvalid

_ROOT: Final = "digicert_trusted_root_g4"
_MAX_FILE: Final = 8 << 20  # octets; DigiCert's lists have some hundred kB
MAX_HEADERS: Final = 64
_PATIENCE: Final = timedelta(seconds=1)
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_FOLDERS: Final = ("hkds", "certs", "crls", "hdr")
_ROOT_FILE: Final = "root_ca.crt"
INLINE: Final = frozenset({"host_key_documents", "certificates", "revocation_lists", "image_headers", "root_ca"})
"""Members of the anchors that stand in place of the folder; each a list of base64."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything read, and not yet compared with the time."""

    host_keys: HostKeyDocuments
    headers: tuple[ImageHeader, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """A file, or a member of the anchors."""

    name: str
    data: bytes


class Folder:
    """The operator's folder. Threads may share it.

    Raises:
        ConfigInvalid: at the start, when it cannot be used; the text lists every problem.
    """

    def __init__(self, path: Path, *, allow_unchecked_revocation: bool) -> None:
        self._path = path
        self._allow = allow_unchecked_revocation
        self._lock = threading.Lock()
        self._looked: datetime | None = None
        self._seen = _state(path)
        self._read = _material_of(path, allow_unchecked_revocation=allow_unchecked_revocation)

    def current(self, at: datetime) -> Material:
        """What the folder holds now, which is `at`.

        Raises:
            ConfigInvalid: it changed and cannot be used as it is.
        """
        with self._lock:
            self._looked = at
            state = _state(self._path)
            if state != self._seen:
                self._read = _material_of(self._path, allow_unchecked_revocation=self._allow)
                self._seen = state
            return self._read

    def latest(self, at: datetime) -> Material:
        """What it held less than a second ago; or when it could last be used."""
        if self._looked is not None and abs(at - self._looked) < _PATIENCE:
            return self._read
        try:
            return self.current(at)
        except ConfigInvalid:
            return self._read


def inline_material(anchors: Mapping[str, Any], *, allow_unchecked_revocation: bool) -> Material:
    """Out of the `INLINE` members of anchors.

    Raises:
        ConfigInvalid: one is missing (but for `root_ca`) or cannot be used.
    """
    items = {name: _inline(anchors, name) for name in INLINE}
    return _material(
        items["host_key_documents"],
        items["certificates"],
        items["revocation_lists"],
        [_header_of(each.name, partial(io.BytesIO, each.data)) for each in items["image_headers"]],
        items["root_ca"],
        allow_unchecked_revocation=allow_unchecked_revocation,
    )


def _inline(anchors: Mapping[str, Any], name: str) -> list[_Item]:
    value = anchors.get(name, [])
    try:
        decoded = [base64.b64decode(each, validate=True) for each in value]
    except (binascii.Error, TypeError, ValueError):
        raise ConfigInvalid(f"se anchors: {name} is not a list of base64") from None
    return [_Item(f"{name}[{at}]", data) for at, data in enumerate(decoded)]


def _material_of(path: Path, *, allow_unchecked_revocation: bool) -> Material:
    root = path / _ROOT_FILE
    return _material(
        [_load(each) for each in _files(path / "hkds")],
        [_load(each) for each in _files(path / "certs")],
        [_load(each) for each in _files(path / "crls")],
        [_header_of(str(each), partial(each.open, "rb")) for each in _files(path / "hdr")],
        [_load(root)] if root.exists() else [],
        allow_unchecked_revocation=allow_unchecked_revocation,
    )


def _material(
    documents: Sequence[_Item],
    certificates: Sequence[_Item],
    lists: Sequence[_Item],
    headers: Sequence[ImageHeader],
    roots: Sequence[_Item],
    *,
    allow_unchecked_revocation: bool,
) -> Material:
    if not documents:
        raise ConfigInvalid("se: there is no host-key document; without one no machine can be asked")
    if len(documents) > MAX_HOST_KEYS:
        raise ConfigInvalid(f"se: there are {len(documents)} host-key documents, and at most {MAX_HOST_KEYS} fit")
    if len(headers) > MAX_HEADERS:
        raise ConfigInvalid(f"se: there are {len(headers)} image headers, and at most {MAX_HEADERS} are tried")
    if not headers:
        raise ConfigInvalid("se: there is no image header; without one no image is known")
    host_keys = HostKeyDocuments(
        [(each.name, _one_certificate(each)) for each in documents],
        roots=[load_certificate(pinned(_ROOT))] if not roots else _certificates(roots),
        certificates=_certificates(certificates),
        lists=[block for each in lists for block in _lists(each)],
        allow_unchecked_revocation=allow_unchecked_revocation,
    )
    return Material(host_keys, tuple(headers))


def _files(folder: Path) -> list[Path]:
    """Files whose name does not begin with a dot, by name. What a container platform mounts are links to files."""
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith(".") and each.is_file())
    except OSError as err:
        raise ConfigInvalid(f"se: {folder}: {err.strerror}") from None


def _state(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Changes when a file does."""
    if missing := [name for name in _FOLDERS if not (path / name).is_dir()]:
        raise ConfigInvalid(f"se: folder {path} lacks {', '.join(f'{name}/' for name in missing)}")
    try:
        files = [file for name in _FOLDERS for file in _files(path / name)]
        files += [path / _ROOT_FILE] if (path / _ROOT_FILE).exists() else []
        stats = [(str(file), file.stat()) for file in files]
    except OSError as err:
        raise ConfigInvalid(f"se: {path}: {err.strerror}") from None
    return tuple((name, each.st_mtime_ns, each.st_size, each.st_ino) for name, each in stats)


def _load(path: Path) -> _Item:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as err:
        raise ConfigInvalid(f"se: {path}: {err.strerror}") from None
    if len(data) > _MAX_FILE:
        raise ConfigInvalid(f"se: {path} has more than {_MAX_FILE} octets")
    return _Item(str(path), data)


def _header_of(name: str, open_file: Callable[[], Any]) -> ImageHeader:
    try:
        with open_file() as file:
            return read_image_header(file)
    except OSError as err:
        raise ConfigInvalid(f"se: {name}: {err.strerror}") from None
    except ValueError as err:
        raise ConfigInvalid(f"se: {name}: {err}") from None


def _blocks(item: _Item, label: bytes) -> list[bytes]:
    """The PEM blocks of that label, whatever text stands around them; without any, the whole, which may be DER."""
    found = [match for match in _PEM.finditer(item.data) if match[1] == label]
    return [match[0] for match in found] or [item.data]


def _certificates(items: Sequence[_Item]) -> list[x509.Certificate]:
    return [_certificate(item.name, block) for item in items for block in _blocks(item, b"CERTIFICATE")]


def _one_certificate(item: _Item) -> x509.Certificate:
    blocks = _blocks(item, b"CERTIFICATE")
    if len(blocks) != 1:
        raise ConfigInvalid(f"se: {item.name} holds {len(blocks)} certificates, and a host-key document is one")
    return _certificate(item.name, blocks[0])


def _certificate(name: str, data: bytes) -> x509.Certificate:
    """The library reads most parts on use; here all are, so that what is broken shows now."""
    try:
        certificate = load_certificate(data)
        parts = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
        del parts
    except X509_ERRORS:
        raise ConfigInvalid(f"se: {name} is not an X.509 certificate, PEM or DER") from None
    return certificate


def _lists(item: _Item) -> list[bytes]:
    blocks = _blocks(item, b"X509 CRL")
    for block in blocks:
        try:
            load_crl(block)
        except ValueError:
            raise ConfigInvalid(f"se: {item.name} is not a revocation list, PEM or DER") from None
    return blocks
