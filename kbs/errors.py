"""Every error this service raises on purpose. Imports nothing.

`str(err)` is safe to show to the peer: what was wrong with the request, never what would have been right.
`err.operator_detail` may say more (expected values, addresses); it goes to the audit record and the log only.
`reason` is a stable code that scripts may rely on. HTTP status and wire name are decided in `kbs.web.problems`.
"""

from __future__ import annotations

from typing import ClassVar


class KbsError(Exception):
    """Root of the tree."""

    reason: ClassVar[str] = "internal_error"

    def __init__(self, detail: str = "", *, operator_detail: str | None = None) -> None:
        super().__init__(detail)
        self.operator_detail = operator_detail


# --- the peer's fault: the same bytes meet the same refusal -----------------------------------------------------------


class PeerFault(KbsError):
    """The request was at fault."""

    reason = "bad_request"


class MalformedMessage(PeerFault):
    """Bytes that do not decode, a member missing or of the wrong type, a limit of shape passed."""

    reason = "malformed_request"


class UnsupportedVersion(MalformedMessage):
    """A protocol version that is not spoken, or not the one that the challenge was asked for with."""

    reason = "unsupported_version"


class TeeNotEnabled(MalformedMessage):
    """A TEE that nobody knows or that the settings do not enable."""

    reason = "tee_not_enabled"


class PayloadTooLarge(PeerFault):
    """A body over its limit."""

    reason = "payload_too_large"


class HandshakeRefused(PeerFault):
    """The RCAR state machine says no; a new handshake can help."""

    reason = "handshake_refused"


class HandshakeUnknown(HandshakeRefused):
    """No cookie, or one that names no open handshake."""

    reason = "handshake_unknown"


class HandshakeExpired(HandshakeRefused):
    """The challenge is past its life."""

    reason = "challenge_expired"


class ChallengeUsed(HandshakeRefused):
    """The challenge was answered before; it works once."""

    reason = "challenge_used"


class NonceMismatch(HandshakeRefused):
    """The answer carries another nonce than the challenge."""

    reason = "nonce_mismatch"


class EvidenceRejected(PeerFault):
    """Evidence that is not authentic or not bound to this handshake. The only error a Verifier raises."""

    reason = "evidence_rejected"


class EvidenceMalformed(EvidenceRejected):
    """Evidence that does not parse: lengths, types, unknown versions, trailing bytes."""

    reason = "evidence_malformed"


class EvidenceVersionUnsupported(EvidenceRejected):
    """A version of report or quote below the minimum, or one nobody knows."""

    reason = "evidence_version_unsupported"


class SignatureInvalid(EvidenceRejected):
    """A signature over evidence does not verify."""

    reason = "signature_invalid"


class ChainInvalid(EvidenceRejected):
    """A certificate chain that does not end in a pinned root, or whose links or constraints fail."""

    reason = "chain_invalid"


class EndorsementMissing(EvidenceRejected):
    """A certificate or collateral that verification needs, neither in the evidence nor to be had."""

    reason = "endorsement_missing"


class EndorsementExpired(EvidenceRejected):
    """A certificate or collateral outside its validity."""

    reason = "endorsement_expired"


class EndorsementRevoked(EvidenceRejected):
    """A certificate on a revocation list."""

    reason = "endorsement_revoked"


class BindingMismatch(EvidenceRejected):
    """Report data in the evidence that does not bind this challenge and key."""

    reason = "binding_mismatch"


class InitDataMismatch(EvidenceRejected):
    """Init data whose digest the evidence does not carry."""

    reason = "init_data_mismatch"


class TcbMismatch(EvidenceRejected):
    """TCB or chip identity in the report that disagrees with the certificate or with itself."""

    reason = "tcb_mismatch"


class EventLogMismatch(EvidenceRejected):
    """An event log that does not replay to the measured registers."""

    reason = "event_log_mismatch"


class EventLogMalformed(EvidenceMalformed):
    """An event log that does not parse, passes a limit, or contradicts itself."""

    reason = "event_log_malformed"


class SignerNotTrusted(EvidenceRejected):
    """A key or signer that nobody enrolled or allowed."""

    reason = "signer_not_trusted"


class ChipNotAllowed(EvidenceRejected):
    """Evidence of a genuine machine that is not on the operator's list."""

    reason = "chip_not_allowed"


class TeeDisabled(EvidenceRejected):
    """Evidence of a software TEE that no setting switched on."""

    reason = "tee_disabled"


class TokenMissing(PeerFault):
    """No token: neither a finished handshake nor a Bearer header."""

    reason = "token_missing"


class TokenRejected(PeerFault):
    """A token that is malformed, not trusted, or outside its time."""

    reason = "token_rejected"


class AccessDenied(PeerFault):
    """The policy said no."""

    reason = "policy_denied"


class PodTokenRejected(PeerFault):
    """A Kubernetes service-account token that was presented and does not verify, or names no Pod."""

    reason = "pod_token_rejected"


class PodClusterUnknown(PodTokenRejected):
    """A pod token whose issuer and audience are those of no cluster in the settings."""

    reason = "pod_cluster_unknown"


class TeeKeyUnusable(PeerFault):
    """A well-formed TEE key whose algorithm is switched off."""

    reason = "tee_key_unusable"


class AdminUnauthenticated(PeerFault):
    """No admin credential, or one that nobody issued."""

    reason = "admin_unauthenticated"


class AdminForbidden(PeerFault):
    """A known administrator without the permission."""

    reason = "admin_forbidden"


class ResourceNotFound(PeerFault):
    """No such resource, value or policy."""

    reason = "resource_not_found"


class PluginNotFound(PeerFault):
    """No such plugin."""

    reason = "plugin_not_found"


class RouteNotFound(PeerFault):
    """No such path."""

    reason = "route_not_found"


class MethodNotAllowed(PeerFault):
    """The path exists, the method does not."""

    reason = "method_not_allowed"

    def __init__(self, detail: str = "", *, allow: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.allow = allow


class PolicyMalformed(PeerFault):
    """A policy upload whose envelope does not decode (upstream: ParsePolicyError)."""

    reason = "policy_malformed"


class PolicyUnacceptable(PeerFault):
    """A policy text that does not compile, or that breaks a rule of the upload pipeline."""

    reason = "policy_unacceptable"


class PolicyCompilerMissing(PolicyUnacceptable):
    """The text needs `opa`, and none is configured."""

    reason = "policy_compiler_missing"


class ReferenceValueUnacceptable(PeerFault):
    """A reference value that is malformed, expired, or not allowed for this publisher."""

    reason = "reference_value_unacceptable"


class NameNotAllowed(PeerFault):
    """A resource or policy name outside its grammar."""

    reason = "name_not_allowed"


class VersionConflict(PeerFault):
    """A compare-and-set that lost."""

    reason = "version_conflict"


class RateLimited(PeerFault):
    """Too many requests."""

    reason = "rate_limited"


# --- a dependency's fault: try later; never an allow ------------------------------------------------------------------


class DependencyFault(KbsError):
    """Something this service needs is down or full."""

    reason = "dependency_unavailable"


class EndorsementsUnavailable(DependencyFault):
    """A vendor service did not answer."""

    reason = "endorsements_unavailable"


class ReferenceValuesUnavailable(DependencyFault):
    """The reference value provider did not answer."""

    reason = "reference_values_unavailable"


class PodIdentityUnavailable(DependencyFault):
    """A cluster's API server, or its key set, is not there to verify a pod token with."""

    reason = "pod_identity_unavailable"


class PolicyEngineUnavailable(DependencyFault):
    """The policy engine did not answer, or answered garbage."""

    reason = "policy_engine_unavailable"


class StorageUnavailable(DependencyFault):
    """The store is down, full, or refuses the record (also: a record that does not open)."""

    reason = "storage_unavailable"


class AuditUnavailable(DependencyFault):
    """No audit sink took the record."""

    reason = "audit_unavailable"


class LargeBodiesFull(DependencyFault):
    """The memory for large bodies is taken; the rest of this one stays unread."""

    reason = "large_bodies_full"


class ShuttingDown(DependencyFault):
    """This process was told to end; another one serves. Said by `/readyz` alone."""

    reason = "shutting_down"


# --- our fault: bug or settings ---------------------------------------------------------------------------------------


class ServerFault(KbsError):
    """A bug here, or settings that cannot work."""


class ConfigInvalid(ServerFault):
    """Settings that do not validate; the text lists every problem."""

    reason = "config_invalid"


class PolicyBroken(ServerFault):
    """An active policy that aborts, runs out of fuel, or answers in the wrong shape."""

    reason = "policy_broken"
