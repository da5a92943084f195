"""Hygon DCU: reports of accelerators. The chain behind them is in `kbs.attestation.hygon`."""

from __future__ import annotations

from kbs.attestation.hygon.chain import pinned_root, root_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.hygondcu.verifier import DcuVerifier
from kbs.errors import ConfigInvalid

__all__ = ["DcuVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `hygondcu` of `kbs.verifiers`. No options. Anchors: `root_from_anchors`.

    Raises:
        ConfigInvalid: an option, or unusable anchors.
    """
    if options.options:
        raise ConfigInvalid(f"hygondcu: unknown options {sorted(options.options)}")
    return DcuVerifier(pinned_root() if options.anchors is None else root_from_anchors(options.anchors))
