"""The sample TEEs: software that says whatever it likes. Nothing is signed; for laptops and tests only."""

from __future__ import annotations

from kbs.attestation.model import Verifier, VerifierOptions
from kbs.attestation.verifiers.sample.verifier import SampleVerifier, is_enabled
from kbs.protocol.tee import Tee

__all__ = ["SampleVerifier", "build", "build_device"]


def build(options: VerifierOptions) -> Verifier:
    """Entry point `sample` of `kbs.verifiers`.

    Raises:
        ConfigInvalid: an unknown option, or anchors, of which there are none.
    """
    return SampleVerifier(Tee.SAMPLE, "cpu", enabled=is_enabled(options))


def build_device(options: VerifierOptions) -> Verifier:
    """Entry point `sampledevice` of `kbs.verifiers`: a device of class `gpu`.

    Raises:
        ConfigInvalid: as `build`.
    """
    return SampleVerifier(Tee.SAMPLE_DEVICE, "gpu", enabled=is_enabled(options))
