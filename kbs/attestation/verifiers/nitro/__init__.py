"""AWS Nitro: attestation documents of Nitro Enclaves and of NitroTPM, checks and claims.

`document` reads bytes, `chain` establishes trust in AWS's one root, `checks` compares, `claims` tells. `nitro` is a TEE
name of this broker; the reference implementation has none for AWS.
"""

from __future__ import annotations

from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.nitro.chain import root_from_anchors
from kbs.attestation.verifiers.nitro.options import read_options
from kbs.attestation.verifiers.nitro.verifier import NitroVerifier
from kbs.attestation.x509 import load_certificate

__all__ = ["NitroVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `nitro` of `kbs.verifiers`.

    Options: `NitroOptions`. Anchors: `root_from_anchors`; None: AWS Nitro Enclaves Root G1.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    if options.anchors is None:
        root = load_certificate(pinned("aws_nitro_enclaves_root_g1"))
    else:
        root = root_from_anchors(options.anchors)
    return NitroVerifier(root, read_options(options.options))
