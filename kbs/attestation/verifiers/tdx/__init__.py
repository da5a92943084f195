"""Intel TDX: a TD's quote and its event log.

All about quotes is in `kbs.attestation.dcap`, all about logs in `kbs.attestation.event_log`; here they meet.
"""

from __future__ import annotations

from kbs.attestation.dcap import pinned_root, root_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.tdx.options import read_options
from kbs.attestation.verifiers.tdx.verifier import TdxVerifier

__all__ = ["TdxVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `tdx` of `kbs.verifiers`.

    Options: `TdxOptions`. Anchors: `root_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    root = pinned_root() if options.anchors is None else root_from_anchors(options.anchors, "tdx")
    return TdxVerifier(root, read_options(options.options))
