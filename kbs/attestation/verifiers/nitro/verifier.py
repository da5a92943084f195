"""The Nitro verifier: one document against AWS's root, a handshake and a moment in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509

from kbs.attestation.cose import verify_sign1
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.nitro.chain import ChainVerifier
from kbs.attestation.verifiers.nitro.checks import check_age, check_binding
from kbs.attestation.verifiers.nitro.claims import claims_of
from kbs.attestation.verifiers.nitro.document import read_document, read_message
from kbs.attestation.verifiers.nitro.options import NitroOptions
from kbs.protocol.tee import Tee


class NitroVerifier:
    """Implements `kbs.attestation.model.Verifier` for `nitro`. Threads may share it.

    Trusted: the root and options it is built with. Not trusted: evidence, which brings its whole chain along.
    """

    def __init__(self, root: x509.Certificate, options: NitroOptions) -> None:
        self._chains = ChainVerifier(root)
        self._options = options

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:  # noqa: ARG002  the port's signature
        """Nothing: the document holds its chain, and AWS has no revocation list for it."""
        return ()

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,  # noqa: ARG002  the port's signature
        binding: Binding,
        at: datetime,
    ) -> Sequence[VerifiedClaims]:
        """Check chain, signature, age and binding as of `at`, in the order of AWS's attestation process.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        message = read_message(evidence.body, allow_trailing_bytes=self._options.allow_trailing_bytes)
        document = read_document(message.payload)
        path, key = self._chains.verify(document, at)
        verify_sign1(message, key)
        self._chains.remember(document, path)
        check_age(document, at, self._options.max_age)
        check_binding(document, binding)
        return [VerifiedClaims(Tee.NITRO, "cpu", claims_of(document, binding))]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:  # noqa: ARG002
        """Nothing can be given by hand; members are ignored."""
        return Endorsements()
