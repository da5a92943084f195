"""What the two tokens must say, and how they must agree with enrolled keys, each other and the handshake.

Numbers are those of verifiers 7.2. What a policy may weigh (lifecycle, firmware, measurements) is not refused here but
told in the claims.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.cose import Algorithm, Sign1, read_key, read_point, verify_sign1
from kbs.attestation.model import Binding
from kbs.attestation.verifiers.cca.options import ApprovedComponent, PlatformKeys
from kbs.attestation.verifiers.cca.token import FIELD_SIZE, HASH_SIZES, PlatformClaims, RealmClaims
from kbs.errors import BindingMismatch, InitDataMismatch, SignatureInvalid, SignerNotTrusted


def check_platform_signature(message: Sign1, claims: PlatformClaims, keys: PlatformKeys) -> None:
    """Check 2: signed with the key that is enrolled for this implementation and instance.

    Raises:
        SignerNotTrusted: nobody enrolled this platform.
        SignatureInvalid.
    """
    key = keys.get((claims.implementation_id, claims.instance_id))
    if key is None:
        raise SignerNotTrusted("no key is enrolled for this CCA platform")
    verify_sign1(message, key)


def check_realm_signature(message: Sign1, claims: RealmClaims) -> None:
    """Check 3: signed with the realm's own key, which check 4 ties to the platform.

    Raises:
        EvidenceMalformed: the claim holds no usable key.
        SignatureInvalid.
    """
    verify_sign1(message, _realm_key(claims))


def _realm_key(claims: RealmClaims) -> ec.EllipticCurvePublicKey:
    if claims.profile is None:
        return read_point(Algorithm.ES384, claims.public_key)
    return read_key(claims.public_key)


def check_binder(platform: PlatformClaims, realm: RealmClaims) -> None:
    """Check 4: the platform vouches for exactly this realm key.

    Raises:
        SignatureInvalid: it vouches for another one, so the realm token is nobody's.
    """
    algorithm = realm.public_key_hash_algorithm.replace("-", "")
    if not hmac.compare_digest(platform.challenge, hashlib.new(algorithm, realm.public_key).digest()):
        raise SignatureInvalid("CCA platform token does not vouch for the key of the realm token")


def check_binding(realm: RealmClaims, binding: Binding) -> None:
    """Check 8: challenge and personalization value, each the digest and zeros up to 64 bytes; all 64 are compared.

    Raises:
        BindingMismatch, InitDataMismatch.
    """
    if binding.report_data is not None and not _is_padded(realm.challenge, binding.report_data):
        raise BindingMismatch("challenge of the CCA realm token does not bind this challenge and key")
    if binding.init_data is not None and not _is_padded(realm.personalization_value, binding.init_data):
        raise InitDataMismatch("personalization value of the CCA realm does not carry the init-data digest")


def _is_padded(field: bytes, digest: bytes) -> bool:
    expected = digest.ljust(FIELD_SIZE, b"\0")
    return any(digest) and hmac.compare_digest(field, expected)


def has_fitting_measurements(realm: RealmClaims) -> bool:
    """Whether every measurement of the realm has the length of the hash that it names.

    The CDDL does not ask for it, and published tokens break it; but then what was measured how is not known.
    """
    size = HASH_SIZES[realm.hash_algorithm]
    return all(len(each) == size for each in (realm.initial_measurement, *realm.extensible_measurements))


def are_approved(platform: PlatformClaims, approved: frozenset[ApprovedComponent]) -> bool:
    """Whether every firmware component is one of the approved ones: same type, measurement and signer."""
    return all(
        ApprovedComponent(each.type, each.measurement, each.signer_id) in approved for each in platform.components
    )
