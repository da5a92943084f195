"""TPM 2.0: a quote by an attestation key that somebody vouched for, with all PCRs of one bank.

`evidence` reads the JSON, `anchors` and `trust` decide which attestation keys count, `claims` tells.

A lone TPM is no confidential computing: whoever owns the machine under it can read the guest's memory. Upstream's
guests offer it as a TEE nevertheless, and so do we.
"""

from __future__ import annotations

from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.tpm.anchors import read_anchors, read_options
from kbs.attestation.verifiers.tpm.verifier import TpmVerifier

__all__ = ["TpmVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `tpm` of `kbs.verifiers`.

    Options and anchors: `kbs.attestation.verifiers.tpm.anchors`. There are no built-in anchors.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors, or no attestation key that could be trusted.
    """
    return TpmVerifier(read_anchors(options.anchors), waive_revocation=read_options(options.options))
