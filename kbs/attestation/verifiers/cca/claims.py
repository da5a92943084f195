"""From a verified token to the claims that a policy reads. Names and types: attestation-service 6.9, and our own."""

from __future__ import annotations

import base64

from kbs.attestation.model import Binding, Json
from kbs.attestation.verifiers.cca.checks import are_approved, has_fitting_measurements
from kbs.attestation.verifiers.cca.options import ApprovedComponent
from kbs.attestation.verifiers.cca.token import PlatformClaims, RealmClaims, SwComponent


def claims_of(
    platform: PlatformClaims,
    realm: RealmClaims,
    binding: Binding,
    approved: frozenset[ApprovedComponent] | None,
) -> dict[str, Json]:
    """All claims of one token: byte strings in base64, `report_data` and `init_data` in hex, all 64 bytes of each.

    approved: the firmware components that a setting approves; None: there is no such setting.
    """
    firmware = "not_checked" if approved is None else "approved" if are_approved(platform, approved) else "unknown"
    return {
        "realm": _realm(realm),
        "platform": _platform(platform),
        "platform_lifecycle": platform.lifecycle_state,
        "platform_firmware": firmware,
        "platform_firmware_approved": firmware == "approved",
        "realm_measurements_fit": has_fitting_measurements(realm),
        "report_data": realm.challenge.hex(),
        "init_data": realm.personalization_value.hex(),
        "binding": "not_checked" if binding.report_data is None else "checked",
        "revocation": "not_applicable",
    }


def _realm(realm: RealmClaims) -> dict[str, Json]:
    found: dict[str, Json] = {
        "cca-realm-challenge": _b64(realm.challenge),
        "cca-realm-personalization-value": _b64(realm.personalization_value),
        "cca-realm-initial-measurement": _b64(realm.initial_measurement),
        "cca-realm-extensible-measurements": [_b64(each) for each in realm.extensible_measurements],
        "cca-realm-hash-algo-id": realm.hash_algorithm,
        "cca-realm-public-key": _b64(realm.public_key),
        "cca-realm-public-key-hash-algo-id": realm.public_key_hash_algorithm,
    }
    return found if realm.profile is None else {"cca-realm-profile": realm.profile, **found}


def _platform(platform: PlatformClaims) -> dict[str, Json]:
    found: dict[str, Json] = {
        "cca-platform-profile": platform.profile,
        "cca-platform-implementation-id": _b64(platform.implementation_id),
        "cca-platform-instance-id": _b64(platform.instance_id),
        "cca-platform-challenge": _b64(platform.challenge),
        "cca-platform-config": _b64(platform.config),
        "cca-platform-lifecycle": platform.lifecycle,
        "cca-platform-sw-components": [_component(each) for each in platform.components],
        "cca-platform-hash-algo-id": platform.hash_algorithm,
    }
    service = platform.verification_service
    return found if service is None else {**found, "cca-platform-service-indicator": service}


def _component(component: SwComponent) -> dict[str, Json]:
    found: dict[str, Json] = {
        "measurement-value": _b64(component.measurement),
        "signer-id": _b64(component.signer_id),
    }
    if component.type is not None:
        found["measurement-type"] = component.type
    if component.version is not None:
        found["version"] = component.version
    if component.hash_algorithm is not None:
        found["hash-algo-id"] = component.hash_algorithm
    return found


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
