"""The CCA verifier against a software platform: what is accepted, what is claimed, and everything that is wrong."""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import UTC, datetime
from functools import cache
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import cca
from kbs.attestation.verifiers.cca import verifier as cca_verifier
from kbs.client.attesters.cca import ABSENT, FIRMWARE, PROFILES, SoftwareCca, cose_key
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
    SignatureInvalid,
    SignerNotTrusted,
)

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
DIGEST = hashlib.sha384(b"nonce and key").digest()
INIT_DATA = hashlib.sha384(b"init data").digest()
BINDING = Binding(DIGEST, INIT_DATA)
GOOD = SoftwareCca()
OTHER_KEY = ec.derive_private_key(5, ec.SECP384R1())
GENERATIONS = pytest.mark.parametrize("generation", PROFILES)


def verifier_of(attester: SoftwareCca, **options: Any) -> cca.CcaVerifier:
    found = cca.build(VerifierOptions(options, attester.anchors))
    assert isinstance(found, cca.CcaVerifier)
    return found


def verify(attester: SoftwareCca = GOOD, binding: Binding = BINDING, **changes: Any) -> dict[str, Any]:
    evidence = Evidence(attester.tee, attester.evidence(DIGEST, INIT_DATA, **changes))
    (found,) = verifier_of(attester).verify(evidence, Endorsements(), binding, AT)
    return dict(found.claims)


@GENERATIONS
def test_every_generation(generation: str) -> None:
    claims = verify(SoftwareCca(generation=generation))
    assert claims["platform"]["cca-platform-profile"] == PROFILES[generation][0]
    assert claims["realm"].get("cca-realm-profile") == PROFILES[generation][1]
    assert claims["report_data"] == (DIGEST + bytes(16)).hex()
    assert claims["init_data"] == (INIT_DATA + bytes(16)).hex()
    assert (claims["binding"], claims["revocation"]) == ("checked", "not_applicable")
    assert claims["realm_measurements_fit"] is True
    assert [each["measurement-type"] for each in claims["platform"]["cca-platform-sw-components"]] == list(FIRMWARE)


@pytest.mark.parametrize("cpak", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
@pytest.mark.parametrize("rak", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_every_curve(cpak: ec.EllipticCurve, rak: ec.EllipticCurve) -> None:
    assert verify(SoftwareCca(generation="2023", cpak_curve=cpak, rak_curve=rak))


def test_legacy_realm_keys_are_on_p384() -> None:
    with pytest.raises(EvidenceMalformed):
        verify(SoftwareCca(rak_curve=ec.SECP256R1()))


def test_a_platform_is_found_again_in_its_folder(tmp_path: Any) -> None:
    first, second = SoftwareCca(TestRoot(tmp_path)), SoftwareCca(TestRoot(tmp_path))
    assert first.anchors == second.anchors
    evidence = Evidence(second.tee, second.evidence(DIGEST))
    assert verifier_of(first).verify(evidence, Endorsements(), Binding(DIGEST), AT)


# --- signatures ------------------------------------------------------------------------------------------------------


@GENERATIONS
def test_signed_by_others(generation: str) -> None:
    attester = SoftwareCca(generation=generation)
    wrong: list[tuple[type[EvidenceRejected], dict[str, Any]]] = [
        (SignatureInvalid, {"key": OTHER_KEY}),
        (SignatureInvalid, {"flip": 17}),
        (SignatureInvalid, {"algorithm": -7}),
        (EvidenceVersionUnsupported, {"algorithm": 5}),
        (EvidenceMalformed, {"unprotected": {1: -35}}),
        (EvidenceMalformed, {"protected": {2: [4]}}),
        (EvidenceMalformed, {"detached": True}),
        *((EvidenceMalformed, {"tag": tag}) for tag in (None, 17, 61, 98)),
    ]
    for error, changes in wrong:
        with pytest.raises(error):
            verify(attester, platform_message=changes)
        with pytest.raises(error):
            verify(attester, realm_message=changes)


@GENERATIONS
def test_another_realm_key_under_the_same_platform(generation: str) -> None:
    """Whoever has a platform token cannot put a key of their own under it (check 4)."""
    attester = SoftwareCca(generation=generation)
    key = cose_key(OTHER_KEY)
    if generation == "legacy":
        parts = dict(cbor2.loads(key))
        key = b"\x04" + parts[-2] + parts[-3]
    token = cbor2.loads(attester.token(DIGEST, INIT_DATA))
    foreign = cbor2.loads(attester.token(DIGEST, INIT_DATA, realm={44237: key}, realm_message={"key": OTHER_KEY}))
    mixed = cbor2.dumps(cbor2.CBORTag(399, {44234: token.value[44234], 44241: foreign.value[44241]}))
    with pytest.raises(SignatureInvalid, match="does not vouch"):
        verifier_of(attester).verify(Evidence(attester.tee, mixed), Endorsements(), BINDING, AT)


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_the_binder_is_by_the_hash_that_the_realm_names(algorithm: str) -> None:
    key = dict(cbor2.loads(cose_key(GOOD.rak)))
    digest = hashlib.new(algorithm.replace("-", ""), b"\x04" + key[-2] + key[-3]).digest()
    assert verify(realm={44240: algorithm}, platform={10: digest})
    for wrong in (digest[:-1] + bytes([digest[-1] ^ 1]), bytes(len(digest)), hashlib.sha512(b"x").digest()):
        with pytest.raises(SignatureInvalid):
            verify(realm={44240: algorithm}, platform={10: wrong})


def test_platforms_are_enrolled_one_by_one() -> None:
    other = SoftwareCca()
    with pytest.raises(SignatureInvalid):
        verify(platform_message={"key": other.cpak})
    with pytest.raises(SignerNotTrusted):
        verify(platform={256: other.instance_id}, platform_message={"key": other.cpak})
    with pytest.raises(SignerNotTrusted):
        verify(platform={2396: bytes(32)})
    assert cca.build(VerifierOptions()).needs(Evidence(GOOD.tee, {})) == ()
    evidence = Evidence(GOOD.tee, GOOD.evidence(DIGEST))
    with pytest.raises(SignerNotTrusted):
        cca.build(VerifierOptions()).verify(evidence, Endorsements(), BINDING, AT)


def test_a_platform_token_that_was_right_is_remembered() -> None:
    """And one that was not is not, and the realm is looked at every time."""
    verifier = verifier_of(GOOD)
    token = cbor2.loads(GOOD.token(DIGEST, INIT_DATA)).value
    wrong = cbor2.loads(GOOD.token(DIGEST, INIT_DATA, realm_message={"flip": 3})).value
    forged = cbor2.loads(GOOD.token(DIGEST, INIT_DATA, platform_message={"flip": 3})).value

    def run(platform: bytes, realm: bytes) -> Any:
        body = cbor2.dumps(cbor2.CBORTag(399, {44234: platform, 44241: realm}))
        return verifier.verify(Evidence(GOOD.tee, body), Endorsements(), BINDING, AT)

    for _ in range(2):
        assert run(token[44234], token[44241])
        with pytest.raises(SignatureInvalid):
            run(token[44234], wrong[44241])
        with pytest.raises(SignatureInvalid):
            run(forged[44234], token[44241])


def test_what_nobody_signed_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One platform token in many spellings is one: whoever has seen it cannot drive out those of others."""
    checked: list[Any] = []
    monkeypatch.setattr(cca_verifier, "check_platform_signature", lambda message, *_: checked.append(message))
    verifier = verifier_of(GOOD)
    token = cbor2.loads(GOOD.token(DIGEST, INIT_DATA)).value
    message = cbor2.loads(token[44234]).value
    for number in range(20):
        platform = cbor2.dumps(cbor2.CBORTag(18, [message[0], {99: bytes(number)}, *message[2:]]))
        body = cbor2.dumps(cbor2.CBORTag(399, {44234: platform, 44241: token[44241]}))
        assert verifier.verify(Evidence(GOOD.tee, body), Endorsements(), BINDING, AT)
    assert len(checked) == 1


# --- binding ---------------------------------------------------------------------------------------------------------


def test_the_whole_of_both_fields_is_compared() -> None:
    for offset in (0, 31, 47, 48, 63):
        field = bytearray(DIGEST.ljust(64, b"\0"))
        field[offset] ^= 1
        with pytest.raises(BindingMismatch):
            verify(realm={10: bytes(field)})
        value = bytearray(INIT_DATA.ljust(64, b"\0"))
        value[offset] ^= 1
        with pytest.raises(InitDataMismatch):
            verify(realm={44235: bytes(value)})


@pytest.mark.parametrize("size", [32, 48, 64])
def test_digests_of_every_length_are_padded(size: int) -> None:
    """Also where the reference compares without padding (verifiers 7.4)."""
    digest = bytes(range(1, size + 1))
    evidence = Evidence(GOOD.tee, GOOD.evidence(digest, digest))
    assert verifier_of(GOOD).verify(evidence, Endorsements(), Binding(digest, digest), AT)
    for other in (digest + b"\1", digest[:-1], digest.ljust(65, b"\0"), b"", bytes(64)):
        with pytest.raises(BindingMismatch):
            verifier_of(GOOD).verify(evidence, Endorsements(), Binding(other, digest), AT)
        with pytest.raises(InitDataMismatch):
            verifier_of(GOOD).verify(evidence, Endorsements(), Binding(digest, other), AT)


def test_zero_fields_bind_nothing() -> None:
    for empty in (b"", bytes(48), bytes(64)):
        with pytest.raises(BindingMismatch):
            verify(binding=Binding(empty, None), realm={10: bytes(64)})
        with pytest.raises(InitDataMismatch):
            verify(binding=Binding(DIGEST, empty), realm={44235: bytes(64)})


def test_no_init_data_and_no_challenge() -> None:
    assert verify(binding=Binding(DIGEST))["binding"] == "checked"
    assert verify(binding=Binding(None))["binding"] == "not_checked"


# --- claims that a policy weighs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifecycle", "state"),
    [
        (0x0000, "unknown"),
        (0x00FF, "unknown"),
        (0x1000, "assembly_and_test"),
        (0x2001, "cca_platform_rot_provisioning"),
        (0x3000, "secured"),
        (0x30FF, "secured"),
        (0x4000, "non_cca_platform_rot_debug"),
        (0x50FF, "recoverable_cca_platform_rot_debug"),
        (0x6000, "decommissioned"),
    ],
)
def test_lifecycle_is_a_claim(lifecycle: int, state: str) -> None:
    assert verify(platform={2395: lifecycle})["platform_lifecycle"] == state


@pytest.mark.parametrize("lifecycle", [-1, 0x0100, 0x2100, 0x3100, 0x7000, 0x13000, 2**63, "secured", True, b"0"])
def test_lifecycles_that_do_not_exist(lifecycle: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(platform={2395: lifecycle})


def test_approved_firmware_is_a_claim() -> None:
    evidence = Evidence(GOOD.tee, GOOD.evidence(DIGEST, INIT_DATA))
    components = GOOD.sw_components
    other = {**components[3], "measurement": "00" * 32}
    for given, firmware in (
        (components, "approved"),
        ([*components, other], "approved"),
        (components[1:], "unknown"),
        ([*components[:3], other, *components[4:]], "unknown"),
        ([{**each, "signer_id": "11" * 32} for each in components], "unknown"),
        ([{"measurement": each["measurement"], "signer_id": each["signer_id"]} for each in components], "unknown"),
        ([], "unknown"),
    ):
        verifier = verifier_of(GOOD, cca_sw_components=given)
        (found,) = verifier.verify(evidence, Endorsements(), BINDING, AT)
        assert found.claims["platform_firmware"] == firmware
        assert found.claims["platform_firmware_approved"] is (firmware == "approved")
    assert verify()["platform_firmware"] == "not_checked"
    assert verify()["platform_firmware_approved"] is False


def test_components_without_a_type() -> None:
    component = {2: b"m" * 32, 5: b"s" * 32}
    evidence = Evidence(GOOD.tee, GOOD.evidence(DIGEST, INIT_DATA, platform={2399: [component]}))
    claimed = []
    for kind in (None, "", "BL"):
        given = {"measurement": "6d" * 32, "signer_id": "73" * 32, "type": kind}
        (found,) = verifier_of(GOOD, cca_sw_components=[given]).verify(evidence, Endorsements(), BINDING, AT)
        claimed.append(found.claims["platform_firmware"])
        (told,) = found.claims["platform"]["cca-platform-sw-components"]
        assert {name: base64.b64decode(value) for name, value in told.items()} == {
            "measurement-value": b"m" * 32,
            "signer-id": b"s" * 32,
        }
    assert claimed == ["approved", "unknown", "unknown"]


def test_measurements_of_another_length_than_their_hash_are_a_claim() -> None:
    assert verify(realm={44236: "sha-256"})["realm_measurements_fit"] is False
    assert verify(realm={44238: bytes(32)})["realm_measurements_fit"] is False
    assert verify(realm={44239: [bytes(64), bytes(64), bytes(64), bytes(48)]})["realm_measurements_fit"] is False
    assert verify(realm={44236: "sha-256", 44238: bytes(32), 44239: [bytes(32)] * 4})["realm_measurements_fit"] is True


# --- structure -------------------------------------------------------------------------------------------------------

WRONG_REALM: dict[int, list[Any]] = {
    10: [ABSENT, bytes(63), bytes(65), bytes(48), b"", "x" * 64, [bytes(64)], 0, None],
    44235: [ABSENT, bytes(63), bytes(65), bytes(32), b"", "x" * 64, None],
    44236: [ABSENT, "sha-1", "SHA-256", "sha256", "none", "", b"sha-256", 1, None],
    44237: [ABSENT, b"", bytes(97), b"\x04" + bytes(96), b"\x02" + bytes(96), bytes(96), b"\x04" * 98, "k" * 97, None],
    44238: [ABSENT, b"", bytes(31), bytes(33), bytes(65), "x" * 64, None],
    44239: [
        ABSENT,
        [],
        [bytes(64)] * 3,
        [bytes(64)] * 5,
        [bytes(64)] * 3 + [b""],
        ["x"] * 4,
        bytes(256),
        {0: b""},
        None,
    ],
    44240: [ABSENT, "sha-1", "md5", b"sha-256", None],
}
WRONG_PLATFORM: dict[int, list[Any]] = {
    10: [ABSENT, b"", bytes(31), bytes(65), "x" * 32, None],
    256: [ABSENT, bytes(33), b"\x02" + bytes(32), b"\x01" + bytes(31), b"\x01" + bytes(33), "x" * 33, None],
    265: [ABSENT, 1, b"x", None],
    2395: [ABSENT, None],
    2396: [ABSENT, bytes(31), bytes(33), "x" * 32, None],
    2399: [ABSENT, [], {}, b"", [{}], [1], [[]], None],
    2400: [1, b"https://"],
    2401: [ABSENT, "x", None],
    2402: [ABSENT, "sha-1", "none", b"sha-256", None],
}
COMPONENT = {1: "BL", 2: bytes(32), 5: bytes(32), 4: "1", 6: "sha-256"}
WRONG_COMPONENT: dict[int, list[Any]] = {
    1: [1, b"BL"],
    2: [ABSENT, b"", bytes(31), bytes(48), "x" * 32, None],
    4: [1],
    5: [ABSENT, b"", bytes(31), None],
    6: ["sha-512", "md5", 1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_REALM.items() for value in values])
def test_wrong_realm_claims(key: int, value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(realm={key: value})


@pytest.mark.parametrize(("key", "value"), [(key, each) for key, values in WRONG_PLATFORM.items() for each in values])
def test_wrong_platform_claims(key: int, value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(platform={key: value})


@pytest.mark.parametrize(("key", "value"), [(key, each) for key, values in WRONG_COMPONENT.items() for each in values])
def test_wrong_components(key: int, value: Any) -> None:
    component = {name: member for name, member in {**COMPONENT, key: value}.items() if member is not ABSENT}
    with pytest.raises(EvidenceMalformed):
        verify(platform={2399: [COMPONENT, component]})


def test_right_components() -> None:
    assert verify(
        platform={2399: [COMPONENT, {2: bytes(32), 5: bytes(64)}, {2: bytes(48), 5: bytes(32), 6: "sha-384"}]}
    )
    assert verify(platform={2400: ABSENT, 2401: b"", 2403: b"newer", 77: [1]}, realm={77: {"a": 1}})
    with pytest.raises(EvidenceMalformed):
        verify(platform={2399: [COMPONENT] * 257})


@pytest.mark.parametrize("profile", ["", "http://arm.com/CCA-SSD/2.0.0", "tag:arm.com,2023:realm#1.0.0 ", "x"])
def test_unknown_profiles(profile: str) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        verify(platform={265: profile})
    with pytest.raises(EvidenceVersionUnsupported):
        verify(SoftwareCca(generation="2023"), realm={265: profile})


def test_a_profile_of_the_wrong_kind() -> None:
    with pytest.raises(EvidenceMalformed):
        verify(SoftwareCca(generation="2023"), realm={265: 5})
    with pytest.raises(EvidenceMalformed):  # without its profile, a COSE key is no point
        verify(SoftwareCca(generation="2023"), realm={265: ABSENT})
    with pytest.raises(EvidenceMalformed):  # and with one, a point is no COSE key
        verify(realm={265: "tag:arm.com,2023:realm#1.0.0"})


@pytest.mark.parametrize(
    "changes",
    [
        {"tag": 398},
        {"tag": 61},
        {"tag": 18},
        {"collection": {44234: ABSENT}},
        {"collection": {44241: ABSENT}},
        {"collection": {44242: b""}},
        {"collection": {44241: "text"}},
        {"collection": {44241: b""}},
        {"collection": {44241: None}},
        {"collection": {44234: [b""]}},
    ],
)
def test_wrong_collections(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(**changes)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": None},
        {"token": []},
        {"token": "AAAA"},
        {"token": [256]},
        {"token": [-1]},
        {"token": [1.0]},
        {"token": [True]},
        {"token": [0] * 70_000},
        {"token": {"0": 1}},
        {"Token": [0]},
        b"",
        b"\xff" * 70_000,
        "",
        None,
        7,
        [[]],
    ],
    ids=lambda body: str(body)[:30],
)
def test_what_is_no_evidence(body: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verifier_of(GOOD).verify(Evidence(GOOD.tee, body), Endorsements(), BINDING, AT)


# --- a thousand wrong ones -------------------------------------------------------------------------------------------


@cache
def token(generation: str) -> tuple[SoftwareCca, bytes]:
    attester = SoftwareCca(generation=generation)
    return attester, attester.token(DIGEST, INIT_DATA)


@GENERATIONS
def test_mutated_tokens(generation: str) -> None:
    """Truncated, extended, flipped, with parts of another good one, with octets moved: always refused."""
    attester, good = token(generation)
    other = attester.token(hashlib.sha384(b"other").digest(), hashlib.sha384(b"other").digest())
    chance = random.Random(generation)
    wrong = [good[:size] for size in range(0, len(good), 13)]
    wrong += [good + bytes(size) for size in (1, 2, 100)]
    wrong += [_flipped(good, offset, 1 << chance.randrange(8)) for offset in range(0, len(good), 5)]
    for _ in range(60):
        begin, size = chance.randrange(len(good)), chance.randrange(1, 64)
        wrong.append(good[:begin] + other[begin : begin + size] + good[begin + size :])
        wrong.append(good[:begin] + good[begin + size :])
        wrong.append(good[:begin] + chance.randbytes(size) + good[begin:])
    verifier = verifier_of(attester)
    causes: list[type[EvidenceRejected]] = []
    for body in wrong:
        if body in (good, other):
            continue
        with pytest.raises(EvidenceRejected) as refusal:
            verifier.verify(Evidence(attester.tee, body), Endorsements(), BINDING, AT)
        causes.append(refusal.type)
    assert EvidenceRejected not in causes, "every cause has a class of its own"
    assert len(causes) > 600  # for each of three generations


def _flipped(data: bytes, offset: int, mask: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]
