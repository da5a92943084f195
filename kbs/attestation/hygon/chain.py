"""From Hygon's root key to a chip's keys: HRK → HSK → CEK → PEK, each link an SM2 signature.

A link that verified is remembered by its bytes, so that a chip known already costs no signature check. Bytes that no
signature covers do not enter what is remembered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.hygon.certificates import (
    CA_SIZE,
    CSV_SIZE,
    CaCertificate,
    CsvCertificate,
    Usage,
    parse_ca,
    parse_csv,
)
from kbs.attestation.hygon.sm2 import PublicKey, Signature, is_signed_by
from kbs.errors import ChainInvalid, ConfigInvalid

_CACHE_SIZE: Final = 4096  # links, two or three for each chip; about 100 bytes each


def pinned_root() -> CaCertificate:
    """The built-in HRK.

    Raises:
        ConfigInvalid: the file in the package is not the pinned one.
    """
    return _root(pinned("hygon_hrk"))


def root_from_anchors(anchors: Mapping[str, Any]) -> CaCertificate:
    """An HRK given instead of the built-in one.

    Args:
        anchors: `hrk`: the certificate, 832 bytes in base64.

    Raises:
        ConfigInvalid: a member missing or unknown, or not a root key's certificate signed by itself.
    """
    if set(anchors) != {"hrk"}:
        raise ConfigInvalid("hygon anchors: exactly `hrk` is needed")
    try:
        return _root(base64.b64decode(anchors["hrk"], validate=True))
    except (binascii.Error, ValueError, TypeError) as err:
        raise ConfigInvalid("hygon anchors: hrk is not base64") from err


def _root(raw: bytes) -> CaCertificate:
    try:
        root = parse_ca(raw, Usage.HRK)
    except ChainInvalid as err:
        raise ConfigInvalid(f"hygon anchors: hrk: {err}") from err
    if not is_signed_by(root.signed, root.signature, root.key):
        raise ConfigInvalid("hygon anchors: hrk is not signed by itself")
    return root


class ChainVerifier:
    """Verifies certificates below one root and remembers the links. Threads may share it."""

    def __init__(self, root: CaCertificate, size: int = _CACHE_SIZE) -> None:
        self._root = root
        self._size = size
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def verify_cek(self, hsk_cek: bytes) -> CsvCertificate:
        """The chip's CEK, under HSK and root.

        Args:
            hsk_cek: HSK (832 bytes) followed by CEK (2084 bytes), as Hygon serves them.

        Raises:
            ChainInvalid: anything about them is wrong.
        """
        if len(hsk_cek) != CA_SIZE + CSV_SIZE:
            raise ChainInvalid("HSK and CEK are not of their length")
        hsk = parse_ca(hsk_cek[:CA_SIZE], Usage.HSK)
        cek = parse_csv(hsk_cek[CA_SIZE:], Usage.CEK)
        self._check("HSK", hsk.signed, hsk.signature, self._root.key)
        self._check("CEK", cek.signed, cek.signature_of(Usage.HSK), hsk.key)
        return cek

    def verify_pek(self, raw: bytes, cek: CsvCertificate) -> CsvCertificate:
        """The platform's PEK, under a CEK that `verify_cek` returned. Its owner's signature (OCA) says nothing here.

        Raises:
            ChainInvalid: anything about it is wrong.
        """
        pek = parse_csv(raw, Usage.PEK)
        self._check("PEK", pek.signed, pek.signature_of(Usage.CEK), cek.key)
        return pek

    def _check(self, name: str, signed: bytes, signature: Signature, issuer: PublicKey) -> None:
        link = _link(signed, signature, issuer)
        with self._lock:
            if link in self._known:
                self._known.move_to_end(link)
                return
        if not is_signed_by(signed, signature, issuer):
            raise ChainInvalid(f"{name} is not signed by the key above it")
        with self._lock:
            self._known[link] = None
            while len(self._known) > self._size:
                self._known.popitem(last=False)


def _link(signed: bytes, signature: Signature, issuer: PublicKey) -> bytes:
    """What was verified, whole, as one digest. All parts but the last are of fixed length once verified."""
    digest = hashlib.sha256(len(signed).to_bytes(4, "big") + signed)
    for number in (signature.r, signature.s):
        digest.update(number.to_bytes(72, "big"))
    digest.update(issuer.point + issuer.user_id)
    return digest.digest()
