"""IBM Secure Execution: the request, host keys, evidence and its measurement.

`host_keys`, `names` and `material` decide which machines are asked, `arcb` and `issued` how, `evidence`, `measurement`
and `verifier` what is made of the answer.
"""

from __future__ import annotations

from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.se.material import Folder, Material, inline_material
from kbs.attestation.verifiers.se.options import SeOptions, read_options
from kbs.attestation.verifiers.se.verifier import SeVerifier

__all__ = ["SeVerifier", "build"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `se` of `kbs.verifiers`.

    Options and anchors: `SeOptions`. A broker needs the operator's files; by hand they may be left out.

    Raises:
        ConfigInvalid: unknown or unusable options or anchors, or files that cannot be used.
    """
    found = read_options(options)
    return SeVerifier(found, _material(found))


def _material(options: SeOptions) -> Folder | Material | None:
    if options.inline is not None:
        return inline_material(options.inline, allow_unchecked_revocation=options.waive_revocation)
    if options.directory is None:
        return None
    return Folder(options.directory, allow_unchecked_revocation=options.waive_revocation)
