"""AMD SEV-SNP: reports as guests send them, bound to a handshake. What reports mean is in `kbs.attestation.sev`."""

from __future__ import annotations

from kbs.attestation.endorsements.amd_roots import pinned_roots, roots_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.snp.options import read_options
from kbs.attestation.verifiers.snp.verifier import SnpVerifier

__all__ = ["SnpVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `snp` of `kbs.verifiers`.

    Options: `SnpOptions`. Anchors: `roots_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    roots = pinned_roots() if options.anchors is None else roots_from_anchors(options.anchors)
    return SnpVerifier(roots, read_options(options.options))
