"""AMD endorsements: from AMD's Key Distribution Service, and from an offline store in the field's layout.

Sources: AMD 57230 (KDS interface); the store's layout: attestation-service 6.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from kbs.attestation.endorsements.amd import AmdProduct, AmdRef, CrlRef, VcekRef, VekKind, VlekRef, parse_name
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.endorsements.amd_vek import is_vcek_of
from kbs.attestation.endorsements.amd_x509 import is_signed_by
from kbs.attestation.endorsements.files import read_bounded
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.x509 import X509_ERRORS, load_certificate, load_crl
from kbs.errors import ChainInvalid, EndorsementsUnavailable

KDS_URL: Final = "https://kdsintf.amd.com"
_CRL_REFRESH: Final = timedelta(hours=6)
_FILE_REFRESH: Final = timedelta(minutes=5)  # an operator may replace a file


class Fetcher(Protocol):
    """`HttpsFetcher`, or a fake."""

    def get(self, url: str) -> bytes | None:
        """The body, or None when there is no such thing. Raises `EndorsementsUnavailable`."""


class AmdKds:
    """Asks AMD. Only answers under the given roots are handed on, so that nothing else is ever remembered."""

    def __init__(self, fetcher: Fetcher, roots: Mapping[AmdProduct, AmdRoots], base_url: str = KDS_URL) -> None:
        self._fetcher = fetcher
        self._roots = roots
        self._base_url = base_url.rstrip("/")

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:
        """See `Endorser`. VLEKs are not to be had here: AMD serves them to their provider only."""
        ref = _ref(name)
        if ref is None or isinstance(ref, VlekRef) or ref.product not in self._roots:
            return None
        data = self._fetcher.get(self._base_url + address(ref))
        if data is None:
            return None
        roots = self._roots[ref.product]
        try:
            return certificate_under(data, ref, roots) if isinstance(ref, VcekRef) else _list(data, roots, previous, at)
        except X509_ERRORS as err:
            raise EndorsementsUnavailable("a vendor service answered something else") from err


class AmdStore:
    """A folder that an operator fills:

    `vcek/<hwid>/[bl04_tee00_snp24_ucode219[_fmc01]_]vcek.der`, `vlek/<Product>/[<tcb>_]vlek.der`,
    `crl/<Product>.crl`, `vlek-crl/<Product>.crl`; DER or PEM. Not found here is no more than not found here.
    """

    def __init__(self, folder: Path, *, for_any_tcb: bool = False) -> None:
        """`for_any_tcb`: look for the names without a TCB version only. They are right until the firmware changes."""
        self._folder = folder
        self._for_any_tcb = for_any_tcb

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`."""
        ref = _ref(name)
        if ref is None:
            return None
        path = store_path(ref, for_any_tcb=self._for_any_tcb)
        data = None if path is None else read_bounded(self._folder / path)
        return None if data is None else Obtained(data, at + _FILE_REFRESH, _valid_until(data, ref, at))


def address(ref: VcekRef | CrlRef) -> str:
    """Path and query at the KDS. TCB components are decimal and have at least two digits."""
    if isinstance(ref, CrlRef):
        return f"/{ref.kind}/v1/{ref.product}/crl"
    tcb = ref.tcb
    parts = [("fmcSPL", tcb.fmc)] if tcb.fmc is not None else []
    parts += [("blSPL", tcb.bootloader), ("teeSPL", tcb.tee), ("snpSPL", tcb.snp), ("ucodeSPL", tcb.microcode)]
    query = "&".join(f"{key}={value:02d}" for key, value in parts)
    return f"/vcek/v1/{ref.product}/{ref.hwid.hex()}?{query}"


def store_path(ref: AmdRef, *, for_any_tcb: bool) -> str | None:
    """Where the offline store keeps it. Revocation lists have one place, whatever the TCB version."""
    if isinstance(ref, CrlRef):
        return None if for_any_tcb else f"{'crl' if ref.kind is VekKind.VCEK else 'vlek-crl'}/{ref.product}.crl"
    folder, kind = (f"vcek/{ref.hwid.hex()}", "vcek") if isinstance(ref, VcekRef) else (f"vlek/{ref.product}", "vlek")
    if for_any_tcb:
        return f"{folder}/{kind}.der"
    tcb = ref.tcb
    fmc = "" if tcb.fmc is None else f"_fmc{tcb.fmc:02d}"
    spl = f"bl{tcb.bootloader:02d}_tee{tcb.tee:02d}_snp{tcb.snp:02d}_ucode{tcb.microcode:02d}{fmc}"
    return f"{folder}/{spl}_{kind}.der"


def _ref(name: str) -> AmdRef | None:
    try:
        return parse_name(name)
    except ValueError:
        return None


def certificate_under(data: bytes, ref: VcekRef, roots: AmdRoots) -> Obtained:
    """A VCEK as a service answered it, DER or PEM.

    It is remembered for years, so another chip's, which AMD signs just as well, would shut the chip out for as long.

    Raises:
        EndorsementsUnavailable: another issuer's, chip's or TCB version's. X509_ERRORS: no certificate.
    """
    certificate = load_certificate(data)
    if not is_signed_by(certificate, roots.ask):
        raise EndorsementsUnavailable("a vendor service answered a certificate of another issuer")
    try:
        is_wanted = is_vcek_of(certificate, ref)
    except ChainInvalid as err:
        raise EndorsementsUnavailable("a vendor service answered something else") from err
    if not is_wanted:
        raise EndorsementsUnavailable("a vendor service answered a certificate of another chip or TCB version")
    end = certificate.not_valid_after_utc
    return Obtained(data, refresh_at=end, valid_until=end)  # a VCEK never changes


def _list(data: bytes, roots: AmdRoots, previous: bytes | None, at: datetime) -> Obtained:
    crl = load_crl(data)
    if not is_signed_by(crl, roots.ark):
        raise EndorsementsUnavailable("a vendor service answered a revocation list of another issuer")
    if previous is not None and _number(crl) < _number(load_crl(previous)):
        raise EndorsementsUnavailable("a vendor service answered an older revocation list than before")
    # A list that is stale already is handed on all the same: verifiers refuse it, which its absence would not.
    end = crl.next_update_utc or at
    return Obtained(data, refresh_at=min(at + _CRL_REFRESH, max(end, at + _FILE_REFRESH)), valid_until=end)


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _valid_until(data: bytes, ref: AmdRef, at: datetime) -> datetime:
    """Only to choose between places. A file that does not parse comes last, and is left to the verifier to refuse."""
    try:
        if isinstance(ref, CrlRef):
            return load_crl(data).next_update_utc or at
        return load_certificate(data).not_valid_after_utc
    except X509_ERRORS:
        return at - _FILE_REFRESH
