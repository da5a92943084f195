"""Azure's confidential VMs with a paravisor: `az-snp-vtpm` and `az-tdx-vtpm`.

A paravisor owns the hardware report and a virtual TPM. The hardware report vouches for the vTPM's key; the vTPM's quote
is fresh and tells how the guest booted. `evidence`, `hcl`, `runtime` and `tdreport` read, `vtpm` checks what both TEEs
share, `snp` and `tdx` the hardware behind it.
"""

from __future__ import annotations

from kbs.attestation.dcap import pinned_root, root_from_anchors
from kbs.attestation.endorsements.amd_roots import pinned_roots, roots_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.azure_vtpm.options import read_snp_options, read_tdx_options
from kbs.attestation.verifiers.azure_vtpm.snp import AzSnpVerifier
from kbs.attestation.verifiers.azure_vtpm.tdx import AzTdxVerifier

__all__ = ["AzSnpVerifier", "AzTdxVerifier", "build_snp", "build_tdx"]


def build_snp(options: VerifierOptions) -> Verifier:
    """Entry point `az-snp-vtpm` of `kbs.verifiers`.

    Options: `AzSnpOptions`. Anchors: `roots_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    roots = pinned_roots() if options.anchors is None else roots_from_anchors(options.anchors)
    return AzSnpVerifier(roots, read_snp_options(options.options))


def build_tdx(options: VerifierOptions) -> Verifier:
    """Entry point `az-tdx-vtpm` of `kbs.verifiers`.

    Options: `AzTdxOptions`. Anchors: `root_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    root = pinned_root() if options.anchors is None else root_from_anchors(options.anchors, "az-tdx-vtpm")
    return AzTdxVerifier(root, read_tdx_options(options.options))
