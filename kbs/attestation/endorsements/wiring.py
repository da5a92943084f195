"""Which places are asked for which endorsement, and in which order.

For every kind: the operator's folder; what was imported, while fresh; the operator's own servers; Azure's cache, if one
is set; the vendor; and where none of these has a valid one, files and imports that are still good enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from kbs.attestation.endorsements import amd, amd_kds, hygon, hygon_kds, ibm, intel, intel_pcs
from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.endorsements.amd_roots import AmdRoots, pinned_roots
from kbs.attestation.endorsements.azure import AzureVceks
from kbs.attestation.endorsements.cache import FolderCache
from kbs.attestation.endorsements.imported import ImportedEndorser, ImportedFile
from kbs.attestation.endorsements.intel import TcbUpdate
from kbs.attestation.endorsements.model import Endorser
from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.endorsements.service import EndorsementService
from kbs.attestation.endorsements.stores import NamedFiles, NamedHttps
from kbs.attestation.x509 import load_certificate
from kbs.clock import Clock
from kbs.config import EndorsementSettings

if TYPE_CHECKING:
    import httpx

_PREFIXES: Final = (amd.PREFIX, intel.PREFIX, hygon.PREFIX, ibm.PREFIX)


@dataclass(frozen=True, slots=True)
class Roots:
    """Roots under which vendors' answers are taken, instead of the pinned ones. None: the pinned ones."""

    amd: Mapping[AmdProduct, AmdRoots] | None = None
    intel: x509.Certificate | None = None


def endorsement_service(
    settings: EndorsementSettings,
    data: Path,
    clock: Clock,
    *,
    client: httpx.Client | None = None,
    roots: Roots | None = None,
) -> EndorsementService:
    """Wire the service.

    Args:
        data: what relative paths in the settings start from.
        client: for tests; else one that reads no proxy from the environment.
        roots: for tests with a make-believe vendor.

    Raises:
        ConfigInvalid: an address that is not HTTPS, a folder or file of authorities that is none.
    """
    max_stale = None if settings.max_stale_hours is None else timedelta(hours=settings.max_stale_hours)
    offline = None if settings.offline is None else data / settings.offline
    imported = imported_file(settings, data)
    fresh = ImportedEndorser(imported, fresh_only=True, max_stale=max_stale)
    last_resort = ImportedEndorser(imported, fresh_only=False, max_stale=max_stale)
    vendors = _vendors(settings, data, clock, client, roots or Roots()) if settings.network else {}
    return EndorsementService(
        {
            prefix: [*_files(prefix, offline), fresh, *vendors.get(prefix, ()), *_any(prefix, offline), last_resort]
            for prefix in _PREFIXES
        },
        clock,
        folder=cache_folder(settings, data),
        wait=timedelta(seconds=4 * settings.timeout_seconds),
        max_stale=max_stale,
    )


def cache_folder(settings: EndorsementSettings, data: Path) -> FolderCache:
    """Where vendors' answers are remembered. Each edition of Intel's documents has its own: they do not mix."""
    folder = data / settings.cache
    return FolderCache(folder if settings.tcb_update == "early" else folder / "tcb-standard")


def imported_file(settings: EndorsementSettings, data: Path) -> ImportedFile:
    """Where imported endorsements are."""
    return ImportedFile(data / settings.cache)


def _files(prefix: str, folder: Path | None) -> list[Endorser]:
    if folder is None:
        return []
    named = NamedFiles(folder)
    if prefix == amd.PREFIX:
        return [amd_kds.AmdStore(folder), named]
    return [hygon_kds.HygonStore(folder), named] if prefix == hygon.PREFIX else [named]


def _any(prefix: str, folder: Path | None) -> list[Endorser]:
    return [] if folder is None or prefix != amd.PREFIX else [amd_kds.AmdStore(folder, for_any_tcb=True)]


def _vendors(
    settings: EndorsementSettings, data: Path, clock: Clock, client: httpx.Client | None, roots: Roots
) -> dict[str, list[Endorser]]:
    # Here and not above: who only verifies needs no HTTP client.
    from kbs.attestation.endorsements.https import fetcher_for

    azure = () if settings.azure_url is None else (settings.azure_url,)
    vendors = [settings.amd_url, settings.hygon_url, intel_pcs.PCS_URL, intel_pcs.ROOT_CRL_URL, *azure]
    caches = [*settings.intel_urls, *settings.stores]
    ca_file = None if settings.ca_file is None else data / settings.ca_file
    timeout = settings.timeout_seconds
    # Two, so that an operator's own authority counts for the operator's own hosts only.
    public = fetcher_for(vendors, timeout, clock, client)
    private = public if not caches else fetcher_for(caches, timeout, clock, client, ca_file)
    amd_roots = pinned_roots() if roots.amd is None else roots.amd
    intel_root = load_certificate(pinned("intel_sgx_root_ca")) if roots.intel is None else roots.intel
    update = TcbUpdate(settings.tcb_update)
    stores: list[Endorser] = [NamedHttps(private, url) for url in settings.stores]
    return {
        amd.PREFIX: [
            *stores,
            *(AzureVceks(public, amd_roots, url) for url in azure),
            amd_kds.AmdKds(public, amd_roots, settings.amd_url),
        ],
        intel.PREFIX: [
            *stores,
            *(intel_pcs.IntelPcs(public, intel_root, url, update) for url in azure),
            *(
                intel_pcs.IntelPcs(public if intel_pcs.is_intels(url) else private, intel_root, url, update)
                for url in settings.intel_urls
            ),
        ],
        hygon.PREFIX: [*stores, hygon_kds.HygonKds(public, settings.hygon_url)],
        ibm.PREFIX: stores,
    }
