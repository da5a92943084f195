"""The TPM verifier: one quote against trusted keys, a handshake and a moment in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from kbs.attestation.event_log import ima, runtime, tcg
from kbs.attestation.event_log.model import ReplayedLog
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.tpm.pcrs import INIT_DATA_PCR, check_init_data, check_pcrs
from kbs.attestation.tpm.quote import Quote, check_nonce
from kbs.attestation.tpm.signature import verify_signature
from kbs.attestation.verifiers.tpm.anchors import TpmAnchors
from kbs.attestation.verifiers.tpm.claims import claims_of
from kbs.attestation.verifiers.tpm.evidence import Presented, read
from kbs.attestation.verifiers.tpm.trust import TrustedKey, TrustInKeys
from kbs.errors import BindingMismatch
from kbs.protocol.tee import Tee

BANK: Final = "sha256"
NONCE_SIZE: Final = 32
_DIGEST_SIZES: Final = (48, 64)  # SHA-384, as the handshake takes it, and SHA-512


class TpmVerifier:
    """Implements `kbs.attestation.model.Verifier` for `tpm`. Threads may share it.

    Trusted: the anchors it is built with. Not trusted: evidence, whatever keys and certificates are in it.
    """

    def __init__(self, anchors: TpmAnchors, *, waive_revocation: bool = False) -> None:
        self._trust = TrustInKeys(anchors)
        self._waive_revocation = waive_revocation

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:  # noqa: ARG002 - the port's signature
        """Nothing: certificates come with the evidence, revocation lists with the anchors."""
        return ()

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,  # noqa: ARG002 - the port's signature
        binding: Binding,
        at: datetime,
    ) -> Sequence[VerifiedClaims]:
        """Check trust in the key, signature, PCRs, binding and log as of `at`. Numbers: verifiers 6.3.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1.
        presented = read(evidence.body)
        # 2. Trust comes before the signature: a stranger's key is not worth its cost.
        signer = self._trust.establish(presented.ak, presented.chain, at)
        verify_signature(signer.key, presented.signature, presented.message)
        # 3.
        pcrs = check_pcrs(presented.quote, presented.values, presented.signature.hash_algorithm)
        # 4.
        _check_binding(presented.quote, pcrs[INIT_DATA_PCR], binding)
        self._trust.remember(signer)
        # 5, 6 and 8 are claims: a policy decides.
        claims = claims_of(presented, pcrs, signer)
        # 7. Firmware's PCRs must all be in the log; those of the operating system may be without.
        if (log := _log(presented, pcrs)) is not None:
            claims |= log.as_claims()
        if presented.ima_log is not None:
            claims |= ima.replay(presented.ima_log, pcrs[ima.IMA_PCR], BANK).as_claims()
        claims |= self._revocation(signer)
        claims["binding"] = "not_checked" if binding.report_data is None else "checked"
        return [VerifiedClaims(Tee.TPM, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:  # noqa: ARG002
        """Nothing endorses TPM evidence from outside; what is given is ignored."""
        return Endorsements()

    def _revocation(self, signer: TrustedKey) -> dict[str, Json]:
        if signer.certificate is None:  # an enrolled key is revoked by taking it off the list
            return {"revocation": "not_applicable"}
        if signer.is_revocation_checked:
            return {"revocation": "checked"}
        if self._waive_revocation:
            return {"revocation": "not_checked", "revocation_waived": True}
        return {"revocation": "not_checked"}


def _log(presented: Presented, pcrs: Mapping[int, bytes]) -> ReplayedLog | None:
    """Firmware's log, the attestation agent's, or both."""
    boot = None if presented.event_log is None else tcg.replay(presented.event_log, pcrs, BANK)
    agents = None if presented.agent_log is None else runtime.replay(presented.agent_log, pcrs, BANK)
    return boot.beside(agents) if boot and agents else boot or agents


def _check_binding(quote: Quote, init_data_pcr: bytes, binding: Binding) -> None:
    """The nonce is the first 32 octets of the report data, as guests cut it (verifiers 1.2); PCR 8 holds init data.

    Only digests are cut: of other report data, what is left over would go unchecked.
    """
    if binding.report_data is not None:
        if len(binding.report_data) not in _DIGEST_SIZES:
            raise BindingMismatch("report data is neither a SHA-384 nor a SHA-512 digest")
        check_nonce(quote, binding.report_data[:NONCE_SIZE])
    if binding.init_data is not None:
        check_init_data(init_data_pcr, binding.init_data)
