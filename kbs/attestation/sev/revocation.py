"""AMD's revocation lists.

One list for each product, signed by its ARK. It names certificates by serial number, and every VCEK and VLEK that AMD
issues has serial 0: the list can withdraw an ASK or ASVK (and with it all keys below), not one chip. Two rules follow.
A serial on the list refuses a VEK that carries it, whoever the entry meant: a listed 0 refuses every VEK of the product
and never none. And a leaked key of one chip is answered by AMD with a new TCB version, so it is the minimum of the
reported TCB, a matter of policy, that keeps it out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.endorsements.amd_x509 import is_signed_by
from kbs.attestation.sev.chain import EndorsedKey
from kbs.attestation.x509 import X509_ERRORS, load_crl
from kbs.errors import ChainInvalid, EndorsementExpired, EndorsementRevoked

_CACHE_SIZE: Final = 16  # two lists for each product, and their successors


@dataclass(frozen=True, slots=True)
class _RevocationList:
    serials: frozenset[int]
    last_update: datetime
    next_update: datetime


class RevocationChecker:
    """Reads lists and remembers those whose signature was right. Threads may share it."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], _RevocationList] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, data: bytes, roots: AmdRoots, vek: EndorsedKey, at: datetime) -> None:
        """Refuse a list that is not the ARK's or not fresh, and a chain that it names.

        Args:
            data: the list, DER or PEM.

        Raises:
            ChainInvalid: the list does not parse, or another key signed it.
            EndorsementExpired: the list is not valid at `at`.
            EndorsementRevoked: the serial of the VEK, of its issuer or of the ARK is on it.
        """
        found = self._read(data, roots)
        if not found.last_update <= at <= found.next_update:
            raise EndorsementExpired("AMD revocation list is outside its validity")
        if vek.serials & found.serials:
            raise EndorsementRevoked("a certificate of the AMD chain is revoked")

    def _read(self, data: bytes, roots: AmdRoots) -> _RevocationList:
        key = (roots.product, data)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = _parse(data, roots)
            with self._lock:
                self._known[key] = known
                while len(self._known) > _CACHE_SIZE:
                    self._known.popitem(last=False)
        return known


def _parse(data: bytes, roots: AmdRoots) -> _RevocationList:
    try:
        crl = load_crl(data)
        if not is_signed_by(crl, roots.ark):
            raise ChainInvalid("AMD revocation list is not signed by the pinned root")
        if any(extension.critical for extension in crl.extensions):
            # A delta list, or one for some certificates only: what it leaves out would count as not revoked.
            raise ChainInvalid("AMD revocation list of an unknown form")
        next_update = crl.next_update_utc
        if next_update is None:
            raise EndorsementExpired("AMD revocation list does not say how long it is valid")
        serials = frozenset(entry.serial_number for entry in crl)
        return _RevocationList(serials, crl.last_update_utc, next_update)
    except X509_ERRORS as err:
        raise ChainInvalid("AMD revocation list does not parse") from err
