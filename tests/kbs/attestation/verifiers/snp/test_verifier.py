"""The numbered checks of one report against its certificate, its handshake and itself; claims; settings."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import snp
from kbs.client.attesters.snp import CSP_ID, SoftwareSnp
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ChipNotAllowed,
    ConfigInvalid,
    EndorsementMissing,
    EndorsementRevoked,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce").digest()
BINDING = Binding(NONCE)
LOW, MIDDLE, HIGH = TcbVersion(1, 0, 8, 100), TcbVersion(4, 0, 24, 219), TcbVersion(5, 1, 25, 220)


@cache
def attester(product: str = "Milan", kind: str = "vcek") -> SoftwareSnp:
    return SoftwareSnp(product=product, kind=kind)


def verify(
    body: Any, source: SoftwareSnp | None = None, binding: Binding = BINDING, crl: bytes | None = None, **options: Any
) -> dict[str, Any]:
    source = source or attester()
    verifier = snp.build(VerifierOptions({**source.options, **options}, source.anchors))
    evidence = Evidence(Tee.SNP, body)
    given = source.endorsements if crl is None else {"crl": base64.b64encode(crl).decode()}
    (found,) = verifier.verify(evidence, verifier.endorsements_from(evidence, given), binding, AT)
    return dict(found.claims)


WRONG: dict[str, tuple[dict[str, Any], type[EvidenceRejected]]] = {
    "2 version 6": ({"version": 6}, EvidenceVersionUnsupported),
    "2 version 2": ({"version": 2}, EvidenceVersionUnsupported),
    "3 algorithm 0": ({"sig_algo": 0}, EvidenceVersionUnsupported),
    "3 algorithm 2": ({"sig_algo": 2}, EvidenceVersionUnsupported),
    "3 policy bit 17 clear": ({"policy": 0x10000}, EvidenceMalformed),
    "3 policy bit 26": ({"policy": 0x30000 | 1 << 26}, EvidenceMalformed),
    "3 policy bit 63": ({"policy": 0x30000 | 1 << 63}, EvidenceMalformed),
    "4 no roots for the product": ({"cpuid_mod_id": 0x11}, ChainInvalid),
    "4 Venice": ({"cpuid_fam_id": 0x1A, "cpuid_mod_id": 0x50}, EvidenceVersionUnsupported),
    "5 says VLEK": ({"key_info": 1 << 2}, ChainInvalid),
    "5 says not signed": ({"key_info": 7 << 2}, SignatureInvalid),
    "7 another key": ({"signer": ec.generate_private_key(ec.SECP384R1())}, SignatureInvalid),
    "8 reported bootloader": ({"reported_tcb": TcbVersion(3, 0, 24, 219)}, TcbMismatch),
    "8 reported tee": ({"reported_tcb": TcbVersion(4, 1, 24, 219), "current_tcb": HIGH}, TcbMismatch),
    "8 reported snp": ({"reported_tcb": TcbVersion(4, 0, 23, 219)}, TcbMismatch),
    "8 reported microcode": ({"reported_tcb": TcbVersion(4, 0, 24, 218)}, TcbMismatch),
    "9 another chip": ({"chip_id": b"\2" * 64}, TcbMismatch),
    "9 chip of another length": ({"chip_id": bytes(range(1, 9)) + bytes(56)}, TcbMismatch),
    "9 no chip": ({"chip_id": bytes(64)}, TcbMismatch),
    "9 masked chip key": ({"key_info": 0b10}, TcbMismatch),
    "10 reported above current": ({"current_tcb": LOW, "committed_tcb": LOW}, TcbMismatch),
    "10 one component above current": ({"current_tcb": TcbVersion(9, 9, 99, 218)}, TcbMismatch),
    "10 committed above current": ({"committed_tcb": HIGH}, TcbMismatch),
    "10 committed firmware above current": ({"committed": (1, 55, 42)}, TcbMismatch),
    "10 committed firmware of a later minor version": ({"committed": (1, 56, 0)}, TcbMismatch),
    "11 requested by the host": ({"vmpl": 0xFFFFFFFF}, SignerNotTrusted),
    "11 VMPL 4": ({"vmpl": 4}, EvidenceMalformed),
    "13 author key said, not there": ({"key_info": 1}, EvidenceMalformed),
    "13 author key there, not said": ({"author_key_digest": b"\1" * 48}, EvidenceMalformed),
    "14 other report data": ({"report_data": hashlib.sha512(b"x").digest()}, BindingMismatch),
    "14 dirty tail": ({"report_data": NONCE + bytes(15) + b"\1"}, BindingMismatch),
}


@pytest.mark.parametrize(("changes", "error"), WRONG.values(), ids=WRONG)
def test_each_check_refuses_with_its_own_class(changes: dict[str, Any], error: type[EvidenceRejected]) -> None:
    with pytest.raises(error):
        verify(attester().evidence(**{"report_data": NONCE, **changes}))


def test_turin_compares_fmc_and_the_short_hardware_id() -> None:
    turin = attester("Turin")
    assert verify(turin.evidence(NONCE), turin)["reported_tcb_fmc"] == 1
    for changes in (
        {"reported_tcb": TcbVersion(4, 0, 24, 219, 0)},
        {"chip_id": bytes(range(1, 8)) + bytes(57)},
        {"chip_id": bytes(range(1, 9)) + bytes(55) + b"\1"},
    ):
        with pytest.raises(TcbMismatch):
            verify(turin.evidence(NONCE, **changes), turin)


def test_vlek_names_no_chip_and_an_allowed_provider() -> None:
    vlek = attester("Milan", "vlek")
    assert verify(vlek.evidence(NONCE), vlek)["csp_id"] == CSP_ID
    assert verify(vlek.evidence(NONCE, key_info=0b00110), vlek)["vek"] == "vlek"  # the chip key is masked, and not used
    with pytest.raises(TcbMismatch):
        verify(vlek.evidence(NONCE, chip_id=b"\1" * 64), vlek)
    for allowed in ([], ["CN=other"], [CSP_ID.lower()], [CSP_ID + " "]):
        with pytest.raises(SignerNotTrusted):
            verify(vlek.evidence(NONCE), vlek, snp_vlek_csp_ids=allowed)


def test_chips_that_may_attest() -> None:
    milan, turin, vlek = attester(), attester("Turin"), attester(kind="vlek")
    allowed = [milan.chip_id.hex().upper(), turin.chip_id[:8].hex()]
    for source in (milan, turin):
        claims = verify(source.evidence(NONCE), source, snp_allowed_chip_ids=allowed)
        assert claims["chip_id"] == source.chip_id.hex()
        for others in ([], ["00" * 64], [bytes(range(2, 66)).hex()]):
            with pytest.raises(ChipNotAllowed):
                verify(source.evidence(NONCE), source, snp_allowed_chip_ids=others)
    assert verify(turin.evidence(NONCE), turin, snp_allowed_chip_ids=[turin.chip_id.hex()])
    for listed in ([*allowed], ["00" * 64], ["00" * 8]):  # a VLEK vouches for a provider's machines, not for one
        with pytest.raises(ChipNotAllowed):
            verify(vlek.evidence(NONCE), vlek, snp_allowed_chip_ids=listed)


def test_version_2_with_a_product() -> None:
    assert verify(attester().evidence(NONCE, version=2), snp_v2_product="Milan")["version"] == 2


def test_json_that_spells_other_bytes_is_refused() -> None:
    """The claims come from the bytes under the signature, so a forged spelling cannot say anything else."""
    body = attester().evidence(NONCE)
    body["attestation_report"]["measurement"] = [0] * 48
    with pytest.raises(SignatureInvalid):
        verify(body)


def test_members_that_do_not_enter_the_bytes_are_ignored() -> None:
    body = attester().evidence(NONCE)
    expected = verify(body)
    body["attestation_report"]["from_a_newer_guest"] = {"x": [1]}
    body["attestation_report"]["current_tcb"]["fmc"] = 9
    body["also"] = 1
    body["cert_chain"] += [
        {"cert_type": "ARK", "data": [1, 2]}, {"cert_type": {"OTHER": "uuid"}, "data": []}, {"cert_type": "Empty"},
        {"cert_type": "CRL", "data": "?"},
    ]  # fmt: skip
    assert verify(body) == expected


@pytest.mark.parametrize("kinds", [["VCEK", "VCEK"], ["VCEK", "VLEK"], ["VLEK", "VCEK"]])
def test_more_than_one_candidate_is_refused(kinds: list[str]) -> None:
    body = attester().evidence(NONCE)
    data = body["cert_chain"][0]["data"]
    body["cert_chain"] = [{"cert_type": kind, "data": data} for kind in kinds]
    with pytest.raises(EvidenceMalformed):
        verify(body)


@pytest.mark.parametrize(
    "chain",
    [
        1, "x", {}, [1], [{"cert_type": "VCEK"}], [{"cert_type": "VCEK", "data": []}],
        [{"cert_type": "VCEK", "data": "x"}], [{"cert_type": "VCEK", "data": [256]}],
        [{"cert_type": "VCEK", "data": [-1]}], [{"cert_type": "VCEK", "data": [True]}],
        [{"cert_type": "VCEK", "data": [1.0]}], [{"cert_type": "VCEK", "data": [0] * 20000}], [{}] * 17,
    ],
)  # fmt: skip
def test_malformed_tables_are_refused(chain: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        verify(attester().evidence(NONCE) | {"cert_chain": chain})


@pytest.mark.parametrize("name", ["version", "guest_svn", "policy", "vmpl", "sig_algo", "plat_info", "key_info"])
@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 1 << 64, [1]])
def test_numbers_must_be_numbers(name: str, value: Any) -> None:
    body = attester().evidence(NONCE)
    body["attestation_report"][name] = value
    with pytest.raises(EvidenceMalformed):
        verify(body)


def test_without_a_certificate_one_is_asked_for() -> None:
    verifier = snp.build(VerifierOptions(anchors=attester().anchors))
    evidence = Evidence(Tee.SNP, attester().evidence(NONCE, vek=None))
    crl, vcek = verifier.needs(evidence)
    assert crl == EndorsementNeed("amd/crl/Milan", required=False)
    assert vcek == EndorsementNeed(f"amd/vcek/Milan/{attester().chip_id.hex()}/04-00-18-db", required=True)
    given = Endorsements({vcek.name: attester().certificate(), crl.name: attester().crl()})
    assert verifier.verify(evidence, given, BINDING, AT)
    with pytest.raises(EndorsementMissing):
        verifier.verify(evidence, Endorsements({crl.name: attester().crl()}), BINDING, AT)


def test_turin_and_vlek_needs() -> None:
    turin, vlek = attester("Turin"), attester("Milan", "vlek")
    verifier = snp.build(VerifierOptions())
    assert [need.name for need in verifier.needs(Evidence(Tee.SNP, turin.report(NONCE)))] == [
        "amd/crl/Turin",
        "amd/vcek/Turin/0102030405060708/01-04-00-18-db",
    ]
    assert verifier.needs(Evidence(Tee.SNP, vlek.report(NONCE))) == [
        EndorsementNeed("amd/vlek-crl/Milan", required=False),
        EndorsementNeed("amd/vlek/Milan/04-00-18-db", required=False),
    ]
    given = verifier.endorsements_from(Evidence(Tee.SNP, vlek.report(NONCE)), {"vlek": "AAAA", "vcek": "BBBB"})
    assert dict(given.items) == {"amd/vlek/Milan/04-00-18-db": b"\0\0\0"}


@pytest.mark.parametrize("chip_id", [bytes(64), bytes(range(1, 10)) + bytes(55)])
def test_a_chip_that_no_address_can_name_is_not_asked_for(chip_id: bytes) -> None:
    raw = attester("Turin").report(NONCE, chip_id=chip_id)
    with pytest.raises(EndorsementMissing):
        snp.build(VerifierOptions()).needs(Evidence(Tee.SNP, raw))


def test_what_needs_read_is_used_once_and_for_the_same_object_only() -> None:
    verifier = snp.build(VerifierOptions(anchors=attester().anchors))
    good, other = (Evidence(Tee.SNP, attester().evidence(text)) for text in (NONCE, b"\2" * 48))
    verifier.needs(good)
    with pytest.raises(BindingMismatch):
        verifier.verify(other, Endorsements(), BINDING, AT)
    verifier.needs(other)
    assert verifier.verify(good, Endorsements(), BINDING, AT)


def test_revocation_claims() -> None:
    source = attester()
    evidence = Evidence(Tee.SNP, source.evidence(NONCE))
    for options, expected in (
        ({}, {"revocation": "not_checked"}),
        ({"allow_unchecked_revocation": ["tdx"]}, {"revocation": "not_checked"}),
        ({"allow_unchecked_revocation": ["snp"]}, {"revocation": "not_checked", "revocation_waived": True}),
    ):
        verifier = snp.build(VerifierOptions(options, source.anchors))
        (found,) = verifier.verify(evidence, Endorsements(), BINDING, AT)
        assert {k: v for k, v in found.claims.items() if k.startswith("revocation")} == expected
    assert "revocation_waived" not in verify(source.evidence(NONCE), allow_unchecked_revocation=["snp"])
    with pytest.raises(EndorsementRevoked):
        verify(source.evidence(NONCE), crl=source.crl([0x10001]), allow_unchecked_revocation=["snp"])


def test_host_data_is_the_start_of_the_digest() -> None:
    for digest in (hashlib.sha256(b"d").digest(), hashlib.sha384(b"d").digest(), hashlib.sha512(b"d").digest()):
        body = attester().evidence(NONCE, digest)
        assert verify(body, binding=Binding(NONCE, digest))["init_data"] == digest[:32].hex()
        with pytest.raises(InitDataMismatch):
            verify(body, binding=Binding(NONCE, digest[:16]))
    short = bytes(range(20))
    with pytest.raises(InitDataMismatch):
        verify(attester().evidence(NONCE, short), binding=Binding(NONCE, short))


def test_empty_report_data_binds_nothing() -> None:
    with pytest.raises(BindingMismatch):
        verify(attester().evidence(b""), binding=Binding(b""))


def test_claims() -> None:
    claims = verify(
        attester("Genoa").evidence(
            NONCE,
            b"\3" * 32,
            policy=0x30000 | 1 << 18 | 1 << 20 | 0x0137,
            plat_info=0b10000010,
            vmpl=3,
            guest_svn=5,
            key_info=1,
            author_key_digest=b"\xac" * 48,
            current_tcb=HIGH,
            launch_mit_vector=0b101,
            current=(1, 56, 0),
            id_key_digest=b"\xad" * 48,
            family_id=b"\xae" * 16,
            image_id=b"\xaf" * 16,
            report_id_ma=b"\xb0" * 32,
        ),
        attester("Genoa"),
    )
    assert claims.items() >= {
        "version": 5, "product": "Genoa", "vek": "vcek", "vmpl": 3, "guest_svn": 5, "measurement": "ab" * 48,
        "report_data": NONCE.hex() + "00" * 16, "init_data": "03" * 32, "chip_id": bytes(range(1, 65)).hex(),
        "policy_abi_major": 1, "policy_abi_minor": 0x37, "policy_smt_allowed": True, "policy_migrate_ma": True,
        "policy_debug_allowed": False, "policy_single_socket": True, "platform_tsme_enabled": True,
        "platform_smt_enabled": False, "platform_tio_enabled": True, "reported_tcb_bootloader": 4,
        "reported_tcb_tee": 0, "reported_tcb_snp": 24, "reported_tcb_microcode": 219, "current_tcb_tee": 1,
        "committed_tcb_snp": 24, "launch_tcb_microcode": 219, "current_firmware": "1.56.0",
        "committed_firmware": "1.55.41", "provisional_firmware": True, "author_key_enabled": True,
        "id_key_digest": "ad" * 48, "family_id": "ae" * 16, "image_id": "af" * 16, "host_data": "03" * 32,
        "report_id": "07" * 32, "report_id_ma": "b0" * 32, "migration_agent": True, "chip_key_masked": False,
        "author_key_digest": "ac" * 48, "binding": "checked", "revocation": "checked",
    }.items()  # fmt: skip
    assert (claims["launch_mitigations"], claims["current_mitigations"]) == ([0, 2], [])
    assert verify(attester().evidence(NONCE))["migration_agent"] is False
    assert not {"csp_id", "reported_tcb_fmc", "revocation_waived"} & set(claims)
    assert "launch_mitigations" not in verify(attester().evidence(NONCE))


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1}, {"snp_v2_product": "Turin"}, {"snp_v2_product": "milan"}, {"snp_v2_product": 1},
        {"snp_vlek_csp_ids": "CN=x"}, {"snp_vlek_csp_ids": [1]}, {"snp_vlek_csp_ids": [""]},
        {"allow_unchecked_revocation": ["snpp"]}, {"allow_unchecked_revocation": True},
        {"snp_allowed_chip_ids": "00"}, {"snp_allowed_chip_ids": ["00"]}, {"snp_allowed_chip_ids": ["0g" * 64]},
        {"snp_allowed_chip_ids": [bytes(64)]}, {"snp_allowed_chip_ids": None}, {"snp_allowed_chip_ids": ["0x00"]},
        {"allow_trailing_bytes": "yes"}, {"allow_trailing_bytes": 1},
    ],
)  # fmt: skip
def test_unusable_options_are_refused_at_build(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        snp.build(VerifierOptions(options))


@pytest.mark.parametrize("given", [{"crl": "*"}, {"crl": 1}, {"vcek": None}, {"crl": "é"}])
def test_given_endorsements_must_be_base64(given: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        snp.build(VerifierOptions()).endorsements_from(Evidence(Tee.SNP, attester().report(NONCE)), given)
