"""Hygon CSV: report, checks and claims. The chain behind it is in `kbs.attestation.hygon`.

`report` reads bytes, `evidence` reads what guests send, `checks` compares, `claims` tells.
"""

from __future__ import annotations

from kbs.attestation.hygon.chain import pinned_root, root_from_anchors
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.csv.options import read_options
from kbs.attestation.verifiers.csv.verifier import CsvVerifier

__all__ = ["CsvVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `csv` of `kbs.verifiers`.

    Options: `CsvOptions`. Anchors: `root_from_anchors`.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors.
    """
    root = pinned_root() if options.anchors is None else root_from_anchors(options.anchors)
    return CsvVerifier(root, read_options(options.options))
