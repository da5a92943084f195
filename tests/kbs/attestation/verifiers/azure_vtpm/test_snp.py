"""The numbered checks (verifiers 5.3) on evidence of an AMD machine; claims; settings."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import azure_vtpm
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp
from kbs.client.attesters.snp import SoftwareSnp, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ChipNotAllowed,
    ConfigInvalid,
    EndorsementExpired,
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
from kbs.protocol.tee import TEE_ALIASES, Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce").digest()
INIT_DATA = hashlib.sha256(b"init data").digest()
OTHER = TestRoot().rsa("another")


@cache
def attester(product: str = "Milan", version: int = 2) -> SoftwareAzSnp:
    return SoftwareAzSnp(product=product, version=version)


def verify(
    body: Any,
    source: SoftwareAzSnp | None = None,
    binding: Binding | None = None,
    crl: bytes | None = None,
    **options: Any,
) -> dict[str, Any]:
    source = source or attester()
    verifier = azure_vtpm.build_snp(VerifierOptions({**source.options, **options}, source.anchors))
    evidence = Evidence(Tee.AZ_SNP_VTPM, body)
    given = source.endorsements if crl is None else {"crl": base64.b64encode(crl).decode()}
    bound = binding or Binding(NONCE)
    (found,) = verifier.verify(evidence, verifier.endorsements_from(evidence, given), bound, AT)
    return dict(found.claims)


SIXTEEN_FOR_EIGHT = (*range(8), 16)
WRONG: dict[str, tuple[dict[str, Any], type[EvidenceRejected]]] = {
    "2 runtime data of another report": ({"variable_data": attester().vtpm.runtime_data(b"\1")}, BindingMismatch),
    "2 report of other runtime data": ({"hardware_data": hashlib.sha256(b"x").digest() + bytes(32)}, BindingMismatch),
    "2 half of report data": ({"hardware_data": hashlib.sha512(b"x").digest()}, BindingMismatch),
    "2 an SNP report said to be TDX's": ({"hcl": {"report_type": 4}}, EvidenceMalformed),
    "3 no AK": ({"runtime": {"keys": []}}, EvidenceMalformed),
    "3 AK with exponent 3": ({"runtime": {"keys": attester().vtpm.keys(e="Aw")}}, EvidenceMalformed),
    "4 another key": ({"quote": {"signer": OTHER}}, SignatureInvalid),
    "4 the EK": ({"quote": {"signer": attester().vtpm.ek}}, SignatureInvalid),
    "4 another scheme": ({"quote": {"pss": True}}, SignatureInvalid),
    "5 magic": ({"quote": {"magic": 0x00544347}}, EvidenceMalformed),
    "5 not a quote": ({"quote": {"kind": 0x8017}}, EvidenceMalformed),
    "5 octets behind": ({"quote": {"tail": b"\0"}}, EvidenceMalformed),
    "5 PCR 16 in the place of 8": ({"quote": {"selection": SIXTEEN_FOR_EIGHT}}, EvidenceMalformed),
    "5 one PCR less": ({"quote": {"selection": range(23)}}, EvidenceMalformed),
    "5 no PCR": ({"quote": {"selection": ()}}, EvidenceMalformed),
    "5 another bank": ({"quote": {"bank": 0x000C}}, EvidenceMalformed),
    "5 SHA-1 bank": ({"quote": {"bank": 0x0004}}, EvidenceMalformed),
    "5 unknown bank": ({"quote": {"bank": 0x9999}}, EvidenceMalformed),
    "5 two selections": ({"quote": {"banks": 2}}, EvidenceMalformed),
    "5 no selection": ({"quote": {"banks": 0}}, EvidenceMalformed),
    "5 few values": ({"pcrs": attester().vtpm.pcrs()[:9]}, EvidenceMalformed),
    "5 values cut elsewhere": ({"pcrs": [b"".join(attester().vtpm.pcrs()[:2])] + [b""] * 23}, EvidenceMalformed),
    "6 another nonce": ({"nonce": bytes(48)}, BindingMismatch),
    "6 padded nonce": ({"nonce": NONCE.ljust(64, b"\0")}, BindingMismatch),
    "6 cut nonce": ({"nonce": NONCE[:32]}, BindingMismatch),
    "6 no nonce": ({"nonce": b""}, BindingMismatch),
    "7 other values": ({"pcrs": attester().vtpm.pcrs(INIT_DATA)}, SignatureInvalid),
    "7 another digest": ({"quote": {"digest": bytes(32)}}, SignatureInvalid),
    "7 no digest": ({"quote": {"digest": b""}}, SignatureInvalid),
    "8 other user data": ({"user_data": bytes(64)}, BindingMismatch),
    "8 no user data": ({"user_data": None}, BindingMismatch),
    "8 user data is a prefix only": ({"user_data": NONCE.hex()}, BindingMismatch),
    "8 user data goes on": ({"user_data": NONCE + b"\1"}, BindingMismatch),
    "8 user data cut": ({"user_data": NONCE[:47].hex()}, BindingMismatch),
    "9 not signed": ({"key_info": 7 << 2}, SignatureInvalid),
    "9 signed by a VLEK": ({"key_info": 1 << 2}, ChainInvalid),
    "9 another key": ({"signer": ec.generate_private_key(ec.SECP384R1())}, SignatureInvalid),
    "9 another chip": ({"chip_id": b"\2" * 64}, TcbMismatch),
    "9 masked chip": ({"key_info": 2}, TcbMismatch),
    "9 another TCB": ({"reported_tcb": TcbVersion(3, 0, 24, 219)}, TcbMismatch),
    "9 reported above current": ({"current_tcb": TcbVersion(1, 0, 1, 1)}, TcbMismatch),
    "9 asked for by the host": ({"vmpl": 0xFFFFFFFF}, SignerNotTrusted),
    "9 no roots for the product": ({"cpuid_mod_id": 0x11}, ChainInvalid),
    "9 report version 2": ({"version": 2}, EvidenceVersionUnsupported),
    "9 policy bit 17 clear": ({"policy": 0x10000}, EvidenceMalformed),
    "9 flipped": ({"flip": 0x90}, SignatureInvalid),
}


@pytest.mark.parametrize(("changes", "error"), WRONG.values(), ids=WRONG)
def test_each_check_refuses_with_its_own_class(changes: dict[str, Any], error: type[EvidenceRejected]) -> None:
    with pytest.raises(error):
        verify(attester().evidence(NONCE, **changes))


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("product", ["Milan", "Genoa"])
def test_every_version_and_product(version: int, product: str) -> None:
    source = attester(product, version)
    claims = verify(source.evidence(NONCE, INIT_DATA), source, Binding(NONCE, INIT_DATA))
    assert (claims["evidence_version"], claims["product"]) == (version, product)
    with pytest.raises(EvidenceVersionUnsupported):
        verify(source.evidence(NONCE), source, az_min_evidence_version=2) if version < 2 else verify({})


def test_turin_brings_its_fmc() -> None:
    """Upstream leaves it out of the comparison."""
    turin = attester("Turin")
    assert verify(turin.evidence(NONCE), turin)["reported_tcb_fmc"] == 1
    with pytest.raises(TcbMismatch):
        verify(turin.evidence(NONCE, reported_tcb=TcbVersion(4, 0, 24, 219, 0)), turin)


def test_user_data_counts_from_version_2_on() -> None:
    old = attester(version=1)
    for user_data in (bytes(64), None, "00"):
        assert verify(old.evidence(NONCE, user_data=user_data), old)
    forged = attester().evidence(NONCE, user_data=bytes(64)) | {"version": 1}
    with pytest.raises(EvidenceVersionUnsupported):
        verify(forged)


def test_user_data_is_compared_without_a_challenge_too() -> None:
    with pytest.raises(BindingMismatch):
        verify(attester().evidence(NONCE, user_data=bytes(64)), binding=Binding(None))
    assert verify(attester().evidence(NONCE), binding=Binding(None))["binding"] == "not_checked"


@pytest.mark.parametrize("size", [1, 32, 48, 64])
def test_nonces_of_every_size_up_to_user_data(size: int) -> None:
    nonce = hashlib.sha512(b"n").digest()[:size]
    assert verify(attester().evidence(nonce), binding=Binding(nonce))["report_data"] == nonce.hex()


def test_empty_report_data_binds_nothing() -> None:
    with pytest.raises(BindingMismatch):
        verify(attester().evidence(b""), binding=Binding(b""))


def test_init_data_is_pcr_8_extended_once() -> None:
    body = attester().evidence(NONCE, INIT_DATA)
    claims = verify(body, binding=Binding(NONCE, INIT_DATA))
    assert claims["init_data"] == claims["tpm"]["pcr08"] == hashlib.sha256(bytes(32) + INIT_DATA).hexdigest()
    sha384 = hashlib.sha384(b"init data").digest()
    for other in (sha384, sha384[:32], b"", bytes(32), INIT_DATA + bytes(16)):
        with pytest.raises(InitDataMismatch):
            verify(body, binding=Binding(NONCE, other))
    with pytest.raises(InitDataMismatch):
        verify(attester().evidence(NONCE), binding=Binding(NONCE, INIT_DATA))
    with pytest.raises(InitDataMismatch):  # a guest that extended a longer digest; upstream aborts on it
        verify(attester().evidence(NONCE, sha384), binding=Binding(NONCE, sha384))


@pytest.mark.parametrize(("hash_type", "name"), [(1, "sha256"), (2, "sha384"), (3, "sha512")])
def test_every_hash_of_the_header_is_understood(hash_type: int, name: str) -> None:
    body = attester().evidence(NONCE, hcl={"hash_type": hash_type})
    assert verify(body)["binding"] == "checked"
    for claimed in {1, 2, 3} - {hash_type}:
        made = attester().vtpm.runtime_data(NONCE)
        wrong = hashlib.new(name, made).digest().ljust(64, b"\0")
        with pytest.raises(BindingMismatch):
            verify(attester().evidence(NONCE, hardware_data=wrong, hcl={"hash_type": claimed}))


def test_certificates() -> None:
    source = attester()
    for vcek in (SoftwareSnp(TestRoot(label="forger")).certificate(), b"\x30\x00", source.snp.certificate()[:-1]):
        with pytest.raises(ChainInvalid):
            verify(source.evidence(NONCE, vcek=vcek))
    with pytest.raises(TcbMismatch):  # a genuine one, of another chip
        verify(source.evidence(NONCE, vcek=source.snp.certificate(hwid=b"\2" * 64)))
    with pytest.raises(ChainInvalid):
        verify(source.evidence(NONCE, vcek=source.snp.certificate(kind="vlek")))
    old = SoftwareAzSnp(snp=SoftwareSnp(validities=Validities(vek=(datetime(2020, 1, 1, tzinfo=UTC), AT))))
    assert verify(old.evidence(NONCE), old)
    gone = SoftwareAzSnp(
        snp=SoftwareSnp(validities=Validities(vek=(datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))))
    )
    with pytest.raises(EndorsementExpired):
        verify(gone.evidence(NONCE), gone)


def test_revocation() -> None:
    source = attester()
    body = source.evidence(NONCE)
    assert verify(body)["revocation"] == "checked"
    for serial in (0x10000, 0x10001, 0):
        with pytest.raises(EndorsementRevoked):
            verify(body, crl=source.snp.crl([serial]), allow_unchecked_revocation=["az-snp-vtpm"])
    verifier = azure_vtpm.build_snp(VerifierOptions({}, source.anchors))
    (found,) = verifier.verify(Evidence(Tee.AZ_SNP_VTPM, body), Endorsements(), Binding(NONCE), AT)
    assert found.claims["revocation"] == "not_checked"
    assert "revocation_waived" not in found.claims
    verifier = azure_vtpm.build_snp(VerifierOptions({"allow_unchecked_revocation": ["az-snp-vtpm"]}, source.anchors))
    (found,) = verifier.verify(Evidence(Tee.AZ_SNP_VTPM, body), Endorsements(), Binding(NONCE), AT)
    assert found.claims["revocation_waived"] is True


def test_needs_are_those_of_snp() -> None:
    source = attester()
    verifier = azure_vtpm.build_snp(VerifierOptions({}, source.anchors))
    crl = EndorsementNeed("amd/crl/Milan", required=False)
    vcek = EndorsementNeed(f"amd/vcek/Milan/{source.snp.chip_id.hex()}/04-00-18-db", required=True)
    assert verifier.needs(Evidence(Tee.AZ_SNP_VTPM, source.evidence(NONCE))) == [crl]
    bare = Evidence(Tee.AZ_SNP_VTPM, source.evidence(NONCE, vcek=None))
    assert verifier.needs(bare) == [crl, vcek]
    assert verifier.verify(bare, Endorsements({vcek.name: source.snp.certificate()}), Binding(NONCE), AT)
    with pytest.raises(EndorsementMissing):
        verifier.verify(bare, Endorsements(), Binding(NONCE), AT)


def test_chips_that_may_attest() -> None:
    source = attester()
    body, allowed = source.evidence(NONCE), source.snp.chip_id.hex()
    assert verify(body, snp_allowed_chip_ids=["00" * 64, allowed.upper()])["chip_id"] == allowed
    for others in ([], ["00" * 64], [bytes(range(2, 66)).hex()]):
        with pytest.raises(ChipNotAllowed):
            verify(body, snp_allowed_chip_ids=others)


def test_both_spellings_of_the_name() -> None:
    assert TEE_ALIASES["azsnpvtpm"] is Tee.AZ_SNP_VTPM
    assert TEE_ALIASES["aztdxvtpm"] is Tee.AZ_TDX_VTPM


def test_claims() -> None:
    body = attester().evidence(
        NONCE, policy=0x30000 | 1 << 19 | 0x0137, vmpl=1, guest_svn=7, id_key_digest=b"\xac" * 48, plat_info=0b11,
        runtime={"secure_boot": False},
    )  # fmt: skip
    claims = verify(body)
    assert claims.items() >= {
        "measurement": base64.b64encode(b"\xab" * 48).decode(), "policy_abi_major": "1", "policy_abi_minor": "55",
        "policy_smt_allowed": "true", "policy_migrate_ma": "false", "policy_debug_allowed": "true",
        "policy_single_socket": "false", "reported_tcb_bootloader": "4", "reported_tcb_tee": "0",
        "reported_tcb_snp": "24", "reported_tcb_microcode": "219", "platform_tsme_enabled": "true",
        "platform_smt_enabled": "true", "vmpl": 1, "guest_svn": 7, "id_key_digest": "ac" * 48,
        "provisional_firmware": False, "report_data": NONCE.hex(), "init_data": "00" * 32, "binding": "checked",
        "revocation": "checked", "secure-boot": False, "evidence_version": 2,
    }.items()  # fmt: skip
    tpm = claims["tpm"]
    assert [tpm[f"pcr{index:02}"] for index in range(24)] == [v.hex() for v in attester().vtpm.pcrs()]
    assert tpm["clock"] == {"milliseconds": 1_798_044, "reset_count": 2, "restart_count": 0, "safe": True}
    assert claims["boot_measured"] is True
    assert claims["vm-configuration"]["vmUniqueId"] == "00000000-0000-0000-0000-000000000001"
    typed = verify(body, az_typed_claims=True)
    assert typed.items() >= {"measurement": "ab" * 48, "policy_debug_allowed": True, "reported_tcb_snp": 24}.items()
    assert set(typed) == set(claims)


def test_secure_boot_is_not_claimed_by_absence() -> None:
    assert "secure-boot" not in verify(attester().evidence(NONCE, runtime={"configuration": {}}))


def test_what_needs_read_is_used_once_and_for_the_same_object_only() -> None:
    verifier = azure_vtpm.build_snp(VerifierOptions({}, attester().anchors))
    good, other = (Evidence(Tee.AZ_SNP_VTPM, attester().evidence(text)) for text in (NONCE, b"\2" * 48))
    verifier.needs(good)
    with pytest.raises(BindingMismatch):
        verifier.verify(other, Endorsements(), Binding(NONCE), AT)
    verifier.needs(other)
    assert verifier.verify(good, Endorsements(), Binding(NONCE), AT)


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1}, {"snp_vlek_csp_ids": []}, {"az_min_evidence_version": 3}, {"az_min_evidence_version": -1},
        {"az_min_evidence_version": "2"}, {"az_min_evidence_version": True}, {"az_min_evidence_version": None},
        {"az_typed_claims": 1}, {"snp_allowed_chip_ids": ["00"]}, {"snp_v2_product": "Turin"}, {"snp_v2_product": 1},
        {"allow_unchecked_revocation": "az-snp-vtpm"}, {"allow_unchecked_revocation": ["azure"]},
        {"allow_unchecked_revocation": [1]},
    ],
)  # fmt: skip
def test_unusable_options_are_refused_at_build(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        azure_vtpm.build_snp(VerifierOptions(options))


def test_a_thousand_damaged_ones_are_refused() -> None:
    """Octets flipped, cut and appended anywhere, and parts of other good ones put in."""
    random = Random(5)
    source = attester()
    verifier = azure_vtpm.build_snp(VerifierOptions(source.options, source.anchors))
    good = source.evidence(NONCE, INIT_DATA)
    strangers = SoftwareAzSnp(), SoftwareAzSnp(TestRoot(label="forger"))
    others = [stranger.evidence(bytes(48), bytes(32)) for stranger in strangers]
    binding = Binding(NONCE, INIT_DATA)
    assert verifier.verify(Evidence(Tee.AZ_SNP_VTPM, good), Endorsements(), binding, AT)
    for count in range(1200):
        body = damaged(good, others[count % 2], random)
        with pytest.raises(EvidenceRejected):
            verifier.verify(Evidence(Tee.AZ_SNP_VTPM, body), Endorsements(), binding, AT)


def damaged(good: dict[str, Any], other: dict[str, Any], random: Random) -> dict[str, Any]:
    """Evidence of version 2 with one of its parts changed."""
    name = random.choice(["hcl_report", "vcek", "message", "signature", "pcrs"])
    octets, theirs = part(good, name), part(other, name)
    match random.randrange(4):
        case 0:
            at = random.randrange(len(octets))
            octets = octets[:at] + bytes([octets[at] ^ 1 << random.randrange(8)]) + octets[at + 1 :]
        case 1:
            octets = octets[: random.randrange(len(octets.rstrip(b"\0")))]  # an HCL report may end in fewer zeros
        case 2:
            octets += bytes([random.randrange(1, 256)])
        case _:
            octets = theirs
    if name in ("hcl_report", "vcek"):
        return {**good, name: base64.urlsafe_b64encode(octets).decode()}
    values = [octets[at : at + 32].hex() for at in range(0, len(octets), 32)] if name == "pcrs" else octets.hex()
    return {**good, "tpm_quote": {**good["tpm_quote"], name: values}}


def part(body: dict[str, Any], name: str) -> bytes:
    if name in ("hcl_report", "vcek"):
        return base64.urlsafe_b64decode(body[name])
    return bytes.fromhex("".join(body["tpm_quote"][name]))
