"""The Nitro verifier against a software hypervisor: both kinds of documents, and everything that is wrong."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from kbs.attestation.cases import DefaultPolicies, Judged, read_case, run_case
from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import nitro
from kbs.attestation.verifiers.nitro import chain as nitro_chain
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.nitro import ABSENT, AUTHORITIES, SoftwareNitro, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.clock import system_clock
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ConfigInvalid,
    EndorsementExpired,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
    SignatureInvalid,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.strict_json import encode
from tests.fakes.case_files import FACTORIES

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
DIGEST = hashlib.sha384(b"nonce and key").digest()
INIT_DATA = hashlib.sha384(b"init data").digest()
BINDING = Binding(DIGEST, INIT_DATA)
ROOT = TestRoot()
ENCLAVE = SoftwareNitro(ROOT, clock=lambda: AT)
INSTANCE = SoftwareNitro(ROOT, kind="nitrotpm", clock=lambda: AT)
BOTH = pytest.mark.parametrize("attester", [ENCLAVE, INSTANCE], ids=["enclave", "nitrotpm"])
OTHER_KEY = ec.derive_private_key(5, ec.SECP384R1())
SECOND = timedelta(seconds=1)


def verify(
    attester: SoftwareNitro = ENCLAVE, binding: Binding = BINDING, at: datetime = AT, **changes: Any
) -> dict[str, Any]:
    evidence = Evidence(attester.tee, attester.evidence(DIGEST, INIT_DATA, **changes))
    verifier = nitro.build(VerifierOptions(attester.options, attester.anchors))
    (found,) = verifier.verify(evidence, Endorsements(), binding, at)
    return dict(found.claims)


def test_enclaves() -> None:
    claims = verify()
    assert (claims["document"], claims["debug"]) == ("enclave", False)
    assert claims["pcr0"] == hashlib.sha384(b"enclave register 0").hexdigest()
    assert claims["report_data"] == DIGEST.hex()
    assert claims["init_data"] == INIT_DATA.hex()
    assert (claims["binding"], claims["revocation"]) == ("checked", "not_applicable")
    assert claims["timestamp"] == "2026-06-15T12:00:00.000Z"
    assert not any(name.startswith("nitrotpm") for name in claims)


def test_instances() -> None:
    claims = verify(INSTANCE)
    assert claims["document"] == "nitrotpm"
    assert claims["nitrotpm_pcr4"] == hashlib.sha384(b"nitrotpm register 4").hexdigest()
    assert claims["nitrotpm_pcr7"] == hashlib.sha384(b"nitrotpm register 7").hexdigest()
    assert not any(name.startswith("pcr") for name in claims)
    assert "debug" not in claims


def test_an_enclave_is_found_again_in_its_folder(tmp_path: Any) -> None:
    first, second = (SoftwareNitro(TestRoot(tmp_path), clock=lambda: AT) for _ in range(2))
    assert first.anchors == second.anchors
    evidence = Evidence(second.tee, second.evidence(DIGEST))
    verifier = nitro.build(VerifierOptions({}, first.anchors))
    assert verifier.verify(evidence, Endorsements(), Binding(DIGEST), AT)


@BOTH
def test_tagged_messages_and_other_members(attester: SoftwareNitro) -> None:
    assert verify(attester, tag=18)
    assert verify(attester, members={"public_key": b"\x30\x82"})["public_key"] == "MII="
    assert verify(attester, members={"public_key": ABSENT, "newer": [1, 2]})
    assert verify(attester, binding=Binding(DIGEST), members={"user_data": b""})["init_data"] == ""
    assert verify(attester, binding=Binding(DIGEST), members={"user_data": ABSENT})
    assert verify(attester, members={"cabundle": list(reversed(ENCLAVE.bundle))})
    assert verify(attester, members={"cabundle": ENCLAVE.bundle[1:]}), "the root in the bundle is not needed"


# --- debug -----------------------------------------------------------------------------------------------------------


def test_debug_mode_is_a_claim() -> None:
    assert verify(is_debug=True)["debug"] is True
    for index in (0, 1, 2):
        assert verify(registers={index: bytes(48)})["debug"] is True
    registers = dict.fromkeys((0, 1), b"\x01" * 48)
    assert verify(members={"pcrs": registers})["debug"] is True, "a register that is not there"
    assert verify(registers={3: bytes(48), 4: bytes(48)})["debug"] is False


@pytest.fixture(scope="module")
def judge() -> Any:
    engine, policies = WasmEngine(system_clock), DefaultPolicies(Shipped.load())

    def run(attester: SoftwareNitro, affirmable: bool | None, init_data: bytes | None = None, **changes: Any) -> Judged:
        case = {
            "case": "nitro",
            "tee": "nitro",
            "evidence": attester.evidence(DIGEST, init_data, **changes),
            "endorsements": {},
            "anchors": attester.anchors,
            "options": {},
            "now": AT.isoformat(),
            "report_data": DIGEST.hex(),
            "init_data": None if init_data is None else init_data.hex(),
            "expect": {"authentic": True, "affirmable": affirmable, "reason": ""},
        }
        return run_case(read_case(encode(case)), lambda tee: FACTORIES[tee], engine, policies)

    return run


@BOTH
def test_the_default_policy_affirms(judge: Any, attester: SoftwareNitro) -> None:
    assert judge(attester, True).wrong == ()
    assert judge(attester, True, INIT_DATA).wrong == ()


def test_the_default_policy_never_affirms_debug_mode(judge: Any) -> None:
    """Even when zeros are registered as the expected measurements, which the case runner does."""
    assert judge(ENCLAVE, False, is_debug=True).wrong == ()
    assert judge(ENCLAVE, False, registers={0: bytes(48)}).wrong == ()


# --- binding ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "member", [None, ABSENT, b"", DIGEST[:-1], DIGEST + b"\0", DIGEST[:32], DIGEST.ljust(64, b"\0"), b"x" * 48]
)
def test_whole_members_are_compared(attester: SoftwareNitro, member: Any) -> None:
    with pytest.raises(BindingMismatch):
        verify(attester, members={"nonce": member})
    with pytest.raises(InitDataMismatch):
        verify(attester, binding=Binding(DIGEST, DIGEST), members={"user_data": member})


def test_members_do_not_stand_in_for_each_other() -> None:
    for members in (
        {"nonce": INIT_DATA, "user_data": DIGEST},
        {"nonce": None, "user_data": DIGEST},
        {"nonce": None, "public_key": DIGEST},
    ):
        with pytest.raises(BindingMismatch):
            verify(members=members)


def test_zero_digests_bind_nothing() -> None:
    for empty in (b"", bytes(48)):
        with pytest.raises(BindingMismatch):
            verify(binding=Binding(empty), members={"nonce": empty})
        with pytest.raises(InitDataMismatch):
            verify(binding=Binding(DIGEST, empty), members={"user_data": empty})


def test_no_challenge() -> None:
    assert verify(binding=Binding(None))["binding"] == "not_checked"


# --- age -------------------------------------------------------------------------------------------------------------


def test_age() -> None:
    hour = timedelta(hours=1)
    for moment in (AT - hour, AT, AT + hour):
        assert verify(at=moment)
    for moment in (AT - hour - SECOND, AT + hour + SECOND):
        with pytest.raises(EndorsementExpired):
            verify(at=moment)


@pytest.mark.parametrize("timestamp", [ABSENT, None, 0, -1, 2**63, 2**64 - 1, "2026", b"", True, [1]])
def test_wrong_times(timestamp: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(members={"timestamp": timestamp})


def test_times_at_the_end_of_time() -> None:
    with pytest.raises(EndorsementExpired):
        verify(members={"timestamp": 253_402_300_799_999})
    with pytest.raises(EndorsementExpired):
        verify(members={"timestamp": 1})


# --- signature and chain ---------------------------------------------------------------------------------------------


@BOTH
def test_signed_by_others(attester: SoftwareNitro) -> None:
    with pytest.raises(SignatureInvalid):
        verify(attester, signer=OTHER_KEY)
    with pytest.raises(SignatureInvalid):
        verify(attester, flip=-1)
    for algorithm in (-7, -36, -37, -257, 5):
        with pytest.raises(EvidenceVersionUnsupported):
            verify(attester, algorithm=algorithm)


def test_signed_by_an_authority_of_the_chain() -> None:
    for name in AUTHORITIES:
        position = AUTHORITIES.index(name)
        members = {"certificate": ENCLAVE.bundle[position], "cabundle": ENCLAVE.bundle[: max(1, position)]}
        with pytest.raises(ChainInvalid):
            verify(members=members, signer=ENCLAVE.keys[name])


CURVES: list[Any] = [ec.derive_private_key(5, ec.SECP256R1()), ec.derive_private_key(5, ec.SECP521R1())]


@pytest.mark.parametrize("key", CURVES, ids=["P-256", "P-521"])
def test_leaves_on_other_curves(key: Any) -> None:
    certificate = ENCLAVE.certificate(key=key.public_key())
    with pytest.raises(SignatureInvalid):
        verify(members={"certificate": certificate}, signer=key)


def test_leaves_of_other_kinds() -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(b"x" * 32).public_key()
    extra = ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True),)
    for certificate in (
        ENCLAVE.certificate(key=other),
        ENCLAVE.certificate(is_ca=True),
        ENCLAVE.certificate(signs_documents=False),
        ENCLAVE.certificate(issuer_key=OTHER_KEY),
        ENCLAVE.certificate(issuer="zonal", issuer_key=OTHER_KEY),
        ENCLAVE.certificate(extra=extra),
        b"\x30\x00",
        b"x",
        ENCLAVE.certificate() + b"\0",
    ):
        with pytest.raises(ChainInvalid):
            verify(members={"certificate": certificate})


def test_leaves_that_another_authority_issued() -> None:
    """Nearer to the root is still under it; the leaf may come from any CA of the chain."""
    certificate = ENCLAVE.certificate(issuer="regional")
    assert verify(members={"certificate": certificate, "cabundle": ENCLAVE.bundle[:2]})


def test_chains_that_do_not_reach_the_root() -> None:
    bundle = ENCLAVE.bundle
    foreign = SoftwareNitro(clock=lambda: AT)
    for other in (
        bundle[:-1],
        bundle[:1],
        [bundle[0], *bundle[2:]],
        [bundle[0], bundle[1], bundle[3]],
        foreign.bundle,
        [*bundle[:3], foreign.bundle[3]],
        [*bundle[:3], b"x"],
        [*bundle[:3], bundle[3] + b"\0"],
        [*bundle[:3], ENCLAVE.certificate(name="instance", issuer="zonal", is_ca=False)],
        [*bundle[:3], ENCLAVE.certificate(name="instance", issuer="zonal", issuer_key=OTHER_KEY)],
        [bundle[0], ENCLAVE.certificate(name="regional", issuer="root", path_length=0), *bundle[2:]],
    ):
        with pytest.raises(ChainInvalid):
            verify(members={"cabundle": other})
    with pytest.raises(ChainInvalid):
        verify(foreign, members={"certificate": ENCLAVE.certificate(), "cabundle": bundle})


def test_a_root_that_evidence_brings_along_is_none() -> None:
    foreign = SoftwareNitro(clock=lambda: AT)
    evidence = Evidence(foreign.tee, foreign.evidence(DIGEST, INIT_DATA))
    with pytest.raises(ChainInvalid):
        nitro.build(VerifierOptions({}, ENCLAVE.anchors)).verify(evidence, Endorsements(), BINDING, AT)
    with pytest.raises(ChainInvalid):
        nitro.build(VerifierOptions()).verify(evidence, Endorsements(), BINDING, AT)


@pytest.mark.parametrize("part", [*AUTHORITIES, "leaf"])
def test_one_second_past_each_validity(part: str) -> None:
    window = (AT - timedelta(minutes=30), AT + timedelta(minutes=30))
    attester = SoftwareNitro(validities=replace(Validities(), **{part: window}), clock=lambda: AT)
    verifier = nitro.build(VerifierOptions({}, attester.anchors))
    evidence = Evidence(attester.tee, attester.evidence(DIGEST))
    for moment in (*window, AT):
        assert verifier.verify(evidence, Endorsements(), Binding(DIGEST), moment)
    for moment in (window[0] - SECOND, window[1] + SECOND):  # also once the chain is remembered
        with pytest.raises(EndorsementExpired):
            verifier.verify(evidence, Endorsements(), Binding(DIGEST), moment)


@pytest.mark.parametrize(
    "changes",
    [{"is_ca": True, "signs_certificates": False}, {"signs_certificates": True}, {"signs_documents": False}],
)
def test_a_leaf_that_may_do_anything_else_signs_no_document(changes: dict[str, Any]) -> None:
    with pytest.raises(ChainInvalid, match="sign"):
        verify(members={"certificate": ENCLAVE.certificate(**changes)})


def test_a_chain_that_was_right_is_remembered_and_one_that_was_not_is_not() -> None:
    verifier = nitro.build(VerifierOptions({}, ENCLAVE.anchors))
    certificate = ENCLAVE.certificate()
    good = ENCLAVE.evidence(DIGEST, members={"certificate": certificate})
    forged = ENCLAVE.evidence(DIGEST, members={"certificate": certificate}, signer=OTHER_KEY)
    wrong = ENCLAVE.evidence(DIGEST, members={"certificate": certificate, "cabundle": ENCLAVE.bundle[:3]})
    for _ in range(2):
        assert verifier.verify(Evidence(ENCLAVE.tee, good), Endorsements(), Binding(DIGEST), AT)
        with pytest.raises(SignatureInvalid):
            verifier.verify(Evidence(ENCLAVE.tee, forged), Endorsements(), Binding(DIGEST), AT)
        with pytest.raises(ChainInvalid):
            verifier.verify(Evidence(ENCLAVE.tee, wrong), Endorsements(), Binding(DIGEST), AT)


def test_chains_of_forged_documents_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are public; only who holds the key of one gets its chain remembered."""
    monkeypatch.setattr(nitro_chain, "_CACHE_SIZE", 2)
    loaded: list[bytes] = []

    def load(data: bytes) -> x509.Certificate:
        loaded.append(data)
        return load_certificate(data)

    monkeypatch.setattr(nitro_chain, "load_certificate", load)
    verifier = nitro.build(VerifierOptions({}, ENCLAVE.anchors))
    certificate = ENCLAVE.certificate()
    good = Evidence(ENCLAVE.tee, ENCLAVE.evidence(DIGEST, members={"certificate": certificate}))
    assert verifier.verify(good, Endorsements(), Binding(DIGEST), AT)
    for number in range(4):
        members = {"certificate": certificate, "cabundle": [*ENCLAVE.bundle, *ENCLAVE.bundle[:number]]}
        forged = ENCLAVE.evidence(DIGEST, members=members, signer=OTHER_KEY)
        with pytest.raises(SignatureInvalid):
            verifier.verify(Evidence(ENCLAVE.tee, forged), Endorsements(), Binding(DIGEST), AT)
    loaded.clear()
    assert verifier.verify(good, Endorsements(), Binding(DIGEST), AT)
    assert not loaded


# --- structure -------------------------------------------------------------------------------------------------------

WRONG_MEMBERS: dict[str, list[Any]] = {
    "module_id": [ABSENT, None, "", "x" * 257, b"i-0", 5],
    "pcrs": [ABSENT, None, {}, [], {0: bytes(47)}, {0: bytes(32)}, {32: bytes(48)}, {-1: bytes(48)}, {"0": bytes(48)},
             {0: "x" * 48}, {0: None}, {index: bytes(48) for index in range(33)}, b"x"],
    "nitrotpm_pcrs": [{}, {4: bytes(48)}, None],
    "certificate": [ABSENT, None, b"", b"x" * 1025, "x", [b"x"]],
    "cabundle": [ABSENT, None, [], [b""], [None], ["x"], [b"x" * 1025], b"x", {0: b"x"}, [b"x"] * 9],
    "public_key": [b"", b"x" * 1025, "x", 0, False, []],
    "user_data": [b"x" * 1025, "x", 0, False, []],
    "nonce": [b"x" * 1025, "x", 0, False, []],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, values in WRONG_MEMBERS.items() for each in values])
def test_wrong_members(name: str, value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(members={name: value})


@pytest.mark.parametrize("digest", [ABSENT, None, "SHA256", "SHA512", "sha384", b"SHA384", 384])
def test_other_digests(digest: Any) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        verify(members={"digest": digest})


def test_registers_of_both_kinds() -> None:
    """One could be approved and the other looked at."""
    with pytest.raises(EvidenceMalformed):
        verify(INSTANCE, members={"pcrs": {0: b"\1" * 48}})


@pytest.mark.parametrize(
    "payload", [b"", b"\0", b"\xf6", b"\x61a", b"\x80", b"\xff", b"\xbf", b"\xa1\x01\x02", b"\xa2\x61a\x01\x61a\x02"]
)
def test_what_is_no_document(payload: bytes) -> None:
    header = cbor2.dumps({1: -35})
    body = cbor2.dumps([header, {}, payload, bytes(96)])
    with pytest.raises(EvidenceRejected):
        nitro.build(VerifierOptions({}, ENCLAVE.anchors)).verify(
            Evidence(ENCLAVE.tee, body), Endorsements(), BINDING, AT
        )


@pytest.mark.parametrize(
    "body",
    [{}, {"document": None}, {"document": ""}, {"document": "é"}, {"document": "A"}, {"document": "AA=A"},
     {"document": " " * 8}, {"document": [1]}, {"document": "A" * 90_000}, {"Document": "AAAA"}, b"", b"\xff" * 70_000,
     "", None, 7, [[]]],
    ids=lambda body: str(body)[:30],
)  # fmt: skip
def test_what_is_no_evidence(body: Any) -> None:
    verifier = nitro.build(VerifierOptions({}, ENCLAVE.anchors))
    with pytest.raises(EvidenceMalformed):
        verifier.verify(Evidence(ENCLAVE.tee, body), Endorsements(), BINDING, AT)
    assert verifier.needs(Evidence(ENCLAVE.tee, body)) == ()
    assert verifier.endorsements_from(Evidence(ENCLAVE.tee, body), {"crl": "AAAA"}).items == {}


# --- a thousand wrong ones -------------------------------------------------------------------------------------------


@BOTH
def test_mutated_documents(attester: SoftwareNitro) -> None:
    """Truncated, extended, flipped, with parts of another good one, with octets moved: always refused."""
    good = attester.document(DIGEST, INIT_DATA)
    other = attester.document(hashlib.sha384(b"other").digest(), INIT_DATA)
    chance = random.Random(attester.kind)
    wrong = [good[:size] for size in range(0, len(good), 17)]
    wrong += [good + bytes(size) for size in (1, 2, 100)]
    wrong += [_flipped(good, offset, 1 << chance.randrange(8)) for offset in range(0, len(good), 11)]
    for _ in range(60):
        begin, size = chance.randrange(len(good)), chance.randrange(1, 64)
        wrong.append(good[:begin] + other[begin : begin + size] + good[begin + size :])
        wrong.append(good[:begin] + good[begin + size :])
        wrong.append(good[:begin] + chance.randbytes(size) + good[begin:])
    verifier = nitro.build(VerifierOptions({}, attester.anchors))
    causes: list[type[EvidenceRejected]] = []
    for body in wrong:
        if body in (good, other):
            continue
        with pytest.raises(EvidenceRejected) as refusal:
            verifier.verify(Evidence(attester.tee, body), Endorsements(), BINDING, AT)
        causes.append(refusal.type)
    assert EvidenceRejected not in causes, "every cause has a class of its own"
    assert len(causes) > 600  # for each of two kinds


def _flipped(data: bytes, offset: int, mask: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1},
        {"nitro_max_age_seconds": 0},
        {"nitro_max_age_seconds": 10_801},
        {"nitro_max_age_seconds": "60"},
        {"nitro_max_age_seconds": True},
        {"nitro_max_age_seconds": 60.0},
        {"nitro_max_age_seconds": None},
        {"allow_trailing_bytes": 1},
    ],
)
def test_unusable_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        nitro.build(VerifierOptions(options))


@pytest.mark.parametrize(
    "anchors",
    [{}, {"root": 1}, {"root": "x"}, {"root": base64.b64encode(b"x").decode()}, {"root": "AAAA", "other": "AAAA"}],
)
def test_unusable_anchors(anchors: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        nitro.build(VerifierOptions({}, anchors))
