"""Tokens and claim sets that others published, under the test keys that signed them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import cca
from kbs.attestation.verifiers.cca.token import read_platform, read_realm
from kbs.errors import (
    BindingMismatch,
    ConfigInvalid,
    EvidenceMalformed,
    EvidenceRejected,
    InitDataMismatch,
    SignatureInvalid,
    SignerNotTrusted,
)
from kbs.protocol.tee import Tee

VECTORS = Path(__file__).parents[4] / "vectors" / "cca"
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
TOKENS = {
    "cca-example-token": "tastore",
    "cca-token-02": "ta-02-ok",
    "cca-token-draft-ffm-00": "tastore",
}
PLATFORM_KEYS = {  # labels of the names that JSON claim sets have
    "cca-platform-profile": 265,
    "cca-platform-challenge": 10,
    "cca-platform-implementation-id": 2396,
    "cca-platform-instance-id": 256,
    "cca-platform-config": 2401,
    "cca-platform-lifecycle": 2395,
    "cca-platform-sw-components": 2399,
    "cca-platform-service-indicator": 2400,
    "cca-platform-hash-algo-id": 2402,
}
REALM_KEYS = {
    "cca-realm-challenge": 10,
    "cca-realm-personalization-value": 44235,
    "cca-realm-initial-measurement": 44238,
    "cca-realm-extensible-measurements": 44239,
    "cca-realm-hash-algo-id": 44236,
    "cca-realm-public-key": 44237,
    "cca-realm-public-key-hash-algo-id": 44240,
}
COMPONENT_KEYS = {"measurement-type": 1, "measurement-value": 2, "version": 4, "signer-id": 5}
TEXTS = {"cca-platform-profile", "cca-platform-service-indicator", "measurement-type", "version"}


def anchors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text())
    return found


def verify(token: str, binding: Binding, **options: Any) -> dict[str, Any]:
    verifier = cca.build(VerifierOptions({"cca_trust_anchors": anchors(TOKENS[token]), **options}))
    octets = (VECTORS / f"{token}.cbor").read_bytes()
    raw, as_json = (
        verifier.verify(Evidence(Tee.CCA, body), Endorsements(), binding, AT)[0].claims
        for body in (octets, {"token": list(octets)})
    )
    assert raw == as_json
    return dict(raw)


@pytest.mark.parametrize("token", TOKENS)
def test_published_tokens(token: str) -> None:
    claims = verify(token, Binding(None))
    assert claims["binding"] == "not_checked"
    assert claims["platform_lifecycle"] == "secured"
    assert claims["realm_measurements_fit"] is (token != "cca-token-02")
    challenge, value = bytes.fromhex(claims["report_data"]), bytes.fromhex(claims["init_data"])
    assert verify(token, Binding(challenge, value if any(value) else None)) == {**claims, "binding": "checked"}
    with pytest.raises(BindingMismatch):
        verify(token, Binding(challenge[:48], None))
    with pytest.raises(InitDataMismatch):
        verify(token, Binding(challenge, bytes(64)))


def test_claims_of_the_example() -> None:
    """Read independently with a CBOR tool."""
    claims = verify("cca-example-token", Binding(None))
    platform = claims["platform"]
    assert platform["cca-platform-implementation-id"] == "f0VMRgIBAQAAAAAAAAAAAAMAPgABAAAAUFgAAAAAAAA="
    assert platform["cca-platform-lifecycle"] == 12291
    assert platform["cca-platform-config"] == "z8/Pzw=="
    assert platform["cca-platform-service-indicator"] == "https://veraison.example/.well-known/veraison/verification"
    assert [each["measurement-type"] for each in platform["cca-platform-sw-components"]][:3] == [
        "RSE_BL1_2", "RSE_BL2", "RSE_S",
    ]  # fmt: skip
    assert len(platform["cca-platform-sw-components"]) == 13
    assert claims["realm"]["cca-realm-hash-algo-id"] == "sha-512"
    assert claims["report_data"].startswith("57e979ae2618de0c")
    assert "cca-realm-profile" not in claims["realm"]
    newer = verify("cca-token-draft-ffm-00", Binding(None))
    assert newer["realm"]["cca-realm-profile"] == "tag:arm.com,2023:realm#1.0.0"
    assert newer["platform"]["cca-platform-profile"] == "tag:arm.com,2023:cca_platform#1.0.0"


def test_the_names_are_those_of_the_reference() -> None:
    documented = json.loads((VECTORS / "cca-claims.json").read_text())
    claims = verify("cca-token-02", Binding(None))
    for part in ("platform", "realm"):
        assert set(claims[part]) == set(documented[part])
    for name in ("realm", "init_data", "report_data"):
        assert type(claims[name]) is type(documented[name])


def test_the_references_own_values_approve_its_firmware() -> None:
    store = json.loads((VECTORS / "rvstore.json").read_text())
    (platform,) = store["platform"]
    components = [
        {"type": each["component-type"], "measurement": each["measurement-value"], "signer_id": each["signer-id"]}
        for each in platform["sw-components"]
    ]
    for token in ("cca-example-token", "cca-token-draft-ffm-00"):
        assert verify(token, Binding(None), cca_sw_components=components)["platform_firmware"] == "approved"
        for left_out in range(len(components)):
            fewer = components[:left_out] + components[left_out + 1 :]
            claims = verify(token, Binding(None), cca_sw_components=fewer)
            assert (claims["platform_firmware"], claims["platform_firmware_approved"]) == ("unknown", False)


@pytest.mark.parametrize(("token", "store"), [("cca-example-token", "ta-02-ok"), ("cca-token-02", "tastore")])
def test_a_platform_that_nobody_enrolled(token: str, store: str) -> None:
    with pytest.raises(SignerNotTrusted):
        verify(token, Binding(None), cca_trust_anchors=anchors(store))
    with pytest.raises(SignerNotTrusted):
        verify(token, Binding(None), cca_trust_anchors=[])


def test_another_key_for_the_same_platform() -> None:
    (other,) = anchors("tastore")
    (entry,) = anchors("ta-02-ok")
    with pytest.raises(SignatureInvalid):
        verify("cca-token-02", Binding(None), cca_trust_anchors=[{**entry, "pkey": other["pkey"]}])


def test_a_store_with_a_point_off_the_curve() -> None:
    with pytest.raises(ConfigInvalid):
        verify("cca-token-02", Binding(None), cca_trust_anchors=anchors("ta-02-bad"))


@pytest.mark.parametrize("name", ["realm-claims", "realm-claims+spurious-numeric-key"])
def test_realm_claim_sets(name: str) -> None:
    """What is signed and not known is ignored."""
    claims = read_realm((VECTORS / f"{name}.cbor").read_bytes())
    assert (claims.profile, claims.hash_algorithm, len(claims.extensible_measurements)) == (None, "sha-256", 4)


def as_cbor(value: Any, keys: dict[str, int]) -> Any:
    if isinstance(value, dict):
        return {keys.get(name, name): _value(name, member) for name, member in value.items()}
    return value


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [as_cbor(each, COMPONENT_KEYS) if isinstance(each, dict) else base64.b64decode(each) for each in value]
    if isinstance(value, str) and name not in TEXTS and not name.endswith("hash-algo-id"):
        return base64.b64decode(value)
    return value


PLATFORMS = sorted((VECTORS / "platform-claims").glob("*.json"))
REALMS = sorted((VECTORS / "realm-claims").glob("*.json"))


@pytest.mark.parametrize("path", [*PLATFORMS, *REALMS], ids=lambda path: path.stem)
def test_claim_sets_in_json(path: Path) -> None:
    """Turned into CBOR, what their names call valid is read, and the others are not."""
    is_platform = path in PLATFORMS
    payload = cbor2.dumps(as_cbor(json.loads(path.read_text()), PLATFORM_KEYS if is_platform else REALM_KEYS))
    read: Any = read_platform if is_platform else read_realm
    if path.stem in ("test-token-valid-full", "test-cca-claims-all-valid"):
        assert read(payload)
    else:
        with pytest.raises(EvidenceMalformed):
            read(payload)


def test_every_octet_of_a_token_counts() -> None:
    """Bits that change nothing: none, since all of a token is signed or read."""
    verifier = cca.build(VerifierOptions({"cca_trust_anchors": anchors("ta-02-ok")}))
    octets = (VECTORS / "cca-token-02.cbor").read_bytes()
    for offset in range(len(octets)):
        mutated = bytearray(octets)
        mutated[offset] ^= 1 << offset % 8
        with pytest.raises(EvidenceRejected):
            verifier.verify(Evidence(Tee.CCA, bytes(mutated)), Endorsements(), Binding(None), AT)
