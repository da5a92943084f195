"""Intel SGX: an enclave's quote. All about quotes is in `kbs.attestation.dcap`."""

from __future__ import annotations

from kbs.attestation.dcap import pinned_root, root_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.sgx.options import read_options
from kbs.attestation.verifiers.sgx.verifier import SgxVerifier

__all__ = ["SgxVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `sgx` of `kbs.verifiers`.

    Options: `kbs.attestation.dcap.options`. Anchors: `root_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    root = pinned_root() if options.anchors is None else root_from_anchors(options.anchors, "sgx")
    return SgxVerifier(root, read_options(options.options))
