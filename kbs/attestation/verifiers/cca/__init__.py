"""Arm CCA: the token of a realm and of the platform under it, checks and claims.

`token` reads bytes, `checks` compares, `claims` tells, `options` holds who is trusted: platform keys are enrolled one
by one, there is no vendor's root.
"""

from __future__ import annotations

from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.cca.options import read_anchors, read_options
from kbs.attestation.verifiers.cca.verifier import CcaVerifier

__all__ = ["CcaVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `cca` of `kbs.verifiers`.

    Options: `CcaOptions`. Anchors: `read_anchors`; they replace the enrolled keys of the options.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    settings = read_options(options.options)
    keys = settings.platform_keys if options.anchors is None else read_anchors(options.anchors)
    return CcaVerifier(keys, settings.sw_components)
