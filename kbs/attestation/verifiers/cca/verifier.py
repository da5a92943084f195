"""The CCA verifier: one token against enrolled platform keys and a handshake."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.cca.checks import (
    check_binder,
    check_binding,
    check_platform_signature,
    check_realm_signature,
)
from kbs.attestation.verifiers.cca.claims import claims_of
from kbs.attestation.verifiers.cca.options import ApprovedComponent, PlatformKeys
from kbs.attestation.verifiers.cca.token import (
    PlatformClaims,
    Token,
    read_platform,
    read_realm,
    read_token,
    token_octets,
)
from kbs.protocol.tee import Tee

_CACHE_SIZE: Final = 1024  # platforms; about 5 KiB each


class CcaVerifier:
    """Implements `kbs.attestation.model.Verifier` for `cca`. Threads may share it.

    Trusted: the enrolled keys and approved components it is built with. Not trusted: evidence. A token has no dates
    and no revocation list: whoever no longer trusts a platform takes its key out of the settings.
    """

    def __init__(self, keys: PlatformKeys, approved: frozenset[ApprovedComponent] | None) -> None:
        self._keys = dict(keys)
        self._approved = approved
        self._platforms: OrderedDict[tuple[bytes, bytes, bytes], PlatformClaims] = OrderedDict()
        self._lock = threading.Lock()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:  # noqa: ARG002  the port's signature
        """Nothing: platform keys are enrolled, and their like is not to be had from anybody."""
        return ()

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,  # noqa: ARG002  the port's signature
        binding: Binding,
        at: datetime,  # noqa: ARG002  the port's signature
    ) -> Sequence[VerifiedClaims]:
        """Check signatures, the tie between both tokens, and binding. Numbers: verifiers 7.2.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1.
        token = read_token(token_octets(evidence.body))
        # 2, and 5 for the platform.
        platform = self._platform(token)
        # 5 for the realm.
        realm = read_realm(token.realm.payload)
        # 4 before 3: a digest is cheaper than a signature.
        check_binder(platform, realm)
        # 3.
        check_realm_signature(token.realm, realm)
        # 8. 6, 7 and 9 are claims: a policy decides.
        check_binding(realm, binding)
        return [VerifiedClaims(Tee.CCA, "cpu", claims_of(platform, realm, binding, self._approved))]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:  # noqa: ARG002
        """Nothing can be given by hand; members are ignored."""
        return Endorsements()

    def _platform(self, token: Token) -> PlatformClaims:
        """The platform token's claims, signature checked. A platform makes one for each boot of its monitor, so the
        same one comes again with every realm on it; those that were right are remembered, by what is signed and the
        signature: what else is in a token anybody may vary, and with it fill the memory."""
        message = token.platform
        key = (message.protected, message.payload, message.signature)
        with self._lock:
            known = self._platforms.get(key)
            if known is not None:
                self._platforms.move_to_end(key)
                return known
        claims = read_platform(message.payload)
        check_platform_signature(message, claims, self._keys)
        with self._lock:
            self._platforms[key] = claims
            while len(self._platforms) > _CACHE_SIZE:
                self._platforms.popitem(last=False)
        return claims
