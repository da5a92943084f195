"""Azure's cache of AMD certificates (Trusted Hardware Identity Management, THIM): VCEKs of Azure's own machines.

Its cache of Intel collateral speaks like Intel's service: `intel_pcs`. The service inside a guest
(`http://169.254.169.254/metadata/THIM/…`) answers for that machine only; its answer comes with the guest's evidence.

Source: Azure, "Trusted Hardware Identity Management"; the address as Azure's own container sidecars ask it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VcekRef, parse_name
from kbs.attestation.endorsements.amd_kds import Fetcher, certificate_under
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.x509 import X509_ERRORS, load_certificates
from kbs.errors import EndorsementsUnavailable

_API_VERSION: Final = "2020-10-15-preview"
_PRODUCTS: Final = (AmdProduct.MILAN, AmdProduct.GENOA)  # whose TCB_VERSION the cache's addresses can say


class AzureVceks:
    """Asks Azure's cache. Only VCEKs under the given roots are handed on."""

    def __init__(self, fetcher: Fetcher, roots: Mapping[AmdProduct, AmdRoots], base_url: str) -> None:
        self._fetcher = fetcher
        self._roots = roots
        self._base_url = base_url.rstrip("/")

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`. Other kinds of endorsements are not to be had here."""
        try:
            ref = parse_name(name)
        except ValueError:
            return None
        if not isinstance(ref, VcekRef) or ref.product not in _PRODUCTS or ref.product not in self._roots:
            return None
        data = self._fetcher.get(self._base_url + address(ref))
        if data is None:
            return None
        try:
            # The answer is PEM: VCEK, ASK, ARK. Roots are pinned, so only the first is of use.
            vcek = load_certificates(data)[0].public_bytes(Encoding.DER)
            return certificate_under(vcek, ref, self._roots[ref.product])
        except X509_ERRORS as err:
            raise EndorsementsUnavailable("a vendor service answered something else") from err


def address(ref: VcekRef) -> str:
    """Path and query: chip id in hex, and TCB_VERSION as one number in hex, without leading zeros."""
    return f"/SevSnpVM/certificates/{ref.hwid.hex()}/{_number(ref.tcb):x}?api-version={_API_VERSION}"


def _number(tcb: TcbVersion) -> int:
    """TCB_VERSION as the report holds it on Milan and Genoa, read as a little-endian number (AMD 56860)."""
    return int.from_bytes(bytes((tcb.bootloader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode)), "little")
