"""What can be wrong with evidence of each TEE: by keyword of its software attester, and the reason of the refusal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.client.attesters.cca import ABSENT as NO_CLAIM
from kbs.client.attesters.csv import SoftwareCsv
from kbs.client.attesters.hygon import CEK
from kbs.client.attesters.hygondcu import SoftwareHygonDcu
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.nitro import ABSENT
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SEPT_VE_DISABLE
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import spki
from kbs.protocol.tee import Tee

Keywords = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]

OTHER_P256: Final = ec.generate_private_key(ec.SECP256R1())
OTHER_P384: Final = ec.generate_private_key(ec.SECP384R1())
OTHER_RSA: Final = rsa.generate_private_key(65537, 2048)
OTHER_CHIP: Final = SoftwareCsv(TestRoot(label="other"), serial="TESTSN00000002")
OTHER_AMD: Final = SoftwareSnp(TestRoot(label="other"))
OTHER_DCU: Final = SoftwareHygonDcu(TestRoot(label="other"), chips=("TESTDCU00000001",))
OTHER: Final = hashlib.sha512(b"another digest").digest()

LOW, HIGH = TcbVersion(1, 0, 8, 100), TcbVersion(5, 1, 25, 220)
OLD_TCB: Final = TcbVersion(3, 0, 23, 200)
POLICY: Final = 0x30000
DEBUG, MIGRATION_AGENT = POLICY | 1 << 19, POLICY | 1 << 18

_SNP_REPORT: Final[dict[str, tuple[str, Keywords]]] = {
    "version 6": ("evidence_version_unsupported", {"version": 6}),
    "version 2": ("evidence_version_unsupported", {"version": 2}),
    "another algorithm": ("evidence_version_unsupported", {"sig_algo": 2}),
    "an impossible policy": ("evidence_malformed", {"policy": 0x10000}),
    "another product": ("chain_invalid", {"cpuid_mod_id": 0x11}),
    "signed by nobody": ("signature_invalid", {"key_info": 7 << 2}),
    "said to be signed by a provider's key": ("chain_invalid", {"key_info": 1 << 2}),
    "signed by another key": ("signature_invalid", {"signer": OTHER_P384}),
    "changed after it was signed": ("signature_invalid", {"flip": 0x90}),
    "another TCB than the certificate's": ("tcb_mismatch", {"reported_tcb": OLD_TCB}),
    "TCB above what runs": ("tcb_mismatch", {"current_tcb": LOW, "committed_tcb": LOW}),
    "another chip": ("tcb_mismatch", {"chip_id": b"\2" * 64}),
    "chip key masked": ("tcb_mismatch", {"key_info": 0b10}),
    "asked for by the host": ("signer_not_trusted", {"vmpl": 0xFFFFFFFF}),
    "reserved octets": ("evidence_malformed", {"reserved": {0x4C: 1}}),
}
_SNP_UNSAFE: Final[dict[str, Keywords]] = {
    "debug": {"policy": DEBUG},
    "migration agent": {"policy": MIGRATION_AGENT},
    "VMPL 1": {"vmpl": 1},
    "VMPL 3": {"vmpl": 3},
    "firmware that can be rolled back": {"committed": (1, 54, 41)},
    "another measurement": {"measurement": b"\1" * 48},
}


def _old_snp(machine: Any) -> dict[str, Any]:
    """The chip before its last update: report and certificate agree on an older TCB."""
    tcb = dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), OLD_TCB)
    return {**tcb, "vek": machine.certificate(tcb=OLD_TCB)}


def _old_azure(machine: Any) -> dict[str, Any]:
    found = _old_snp(machine.snp)
    certificate = found.pop("vek")
    return {**found, "vcek": certificate}


def _other_kernel(machine: Any) -> dict[str, Any]:
    """Quoted and listed, but not what was approved."""
    values = [*machine.bank.values]
    values[11] = bytes(32)
    return {"log": None, "quoted": values, "pcrs": values}


_INTEL: Final[dict[str, tuple[str, Keywords]]] = {
    "another kind of key": ("evidence_version_unsupported", {"key_type": 3}),
    "another vendor": ("evidence_version_unsupported", {"vendor": bytes(16)}),
    "signed by another key": ("signature_invalid", {"signer": OTHER_P256}),
    "changed after it was signed": ("signature_invalid", {"flip": 0x40}),
    "quoting enclave signed by another key": ("signature_invalid", {"qe_signer": OTHER_P256}),
    "quoting enclave vouches for another key": ("signature_invalid", {"qe": {"report_data": OTHER}}),
    "quoting enclave of somebody": ("signer_not_trusted", {"qe": {"mr_signer": bytes(32)}}),
    "quoting enclave in debug mode": ("signer_not_trusted", {"qe": {"flags": 0x13}}),
    "quoting enclave that was revoked": ("tcb_mismatch", {"qe": {"isv_svn": 1}}),
    "no certificates": ("chain_invalid", {"chain": b"\0"}),
    "certificates by reference": ("evidence_version_unsupported", {"certification_type": 1}),
    "platform that Intel's documents do not know": ("endorsement_missing", {"platform": Platform(fmspc=bytes(6))}),
    "platform of another PCE": ("tcb_mismatch", {"platform": Platform(pce_id=b"\1\0")}),
    "platform that was revoked": ("tcb_mismatch", {"platform": Platform(components=(1,) * 16, pce_svn=5)}),
    "platform below every level": ("tcb_mismatch", {"platform": Platform(components=(0,) * 16, pce_svn=0)}),
    "something behind": ("evidence_malformed", {"trailing": b"\1"}),
    "version 2": ("evidence_version_unsupported", {"version": 2}),
}
_INTEL_UNSAFE: Final[dict[str, Keywords]] = {
    "quoting enclave out of date": {"qe": {"isv_svn": 5}},
    "platform out of date": {"platform": Platform(components=(6,) * 16, pce_svn=12)},
    "platform out of date, and to be configured": {"platform": Platform(components=(3,) * 16, pce_svn=12)},
}
_TD_UNSAFE: Final[dict[str, Keywords]] = {
    "debug": {"fields": {"td_attributes": SEPT_VE_DISABLE | 1}},
    "profiling": {"fields": {"td_attributes": SEPT_VE_DISABLE | 1 << 4}},
    "migratable": {"fields": {"td_attributes": SEPT_VE_DISABLE | 1 << 29}},
    "module out of date": {"fields": {"tee_tcb_svn": bytes((4, 1, 5)) + bytes(13)}},
    "another measurement": {"fields": {"mr_td": b"\1" * 48}},
}
_TD: Final[dict[str, tuple[str, Keywords]]] = {
    **_INTEL,
    "another kind of TEE": ("evidence_version_unsupported", {"tee_type": 0x82}),
    "module that was revoked": ("tcb_mismatch", {"fields": {"tee_tcb_svn": bytes((1, 1, 5)) + bytes(13)}}),
    "module of somebody": ("tcb_mismatch", {"fields": {"mrsigner_seam": b"\1" * 48}}),
    "service TD": ("signer_not_trusted", {"version": 5, "fields": {"mr_servicetd": b"\1" * 48}}),
    "reserved attributes": ("evidence_malformed", {"fields": {"td_attributes": SEPT_VE_DISABLE | 1 << 40}}),
    "version 5 with another body": ("evidence_malformed", {"version": 5, "body_size": 584}),
    "version 5 with an unknown body": ("evidence_version_unsupported", {"version": 5, "body_type": 7}),
    "another way to certify": ("evidence_version_unsupported", {"outer_type": 5}),
}
_VTPM: Final[dict[str, tuple[str, Keywords]]] = {
    "quote of another challenge": ("binding_mismatch", {"nonce": OTHER[:48]}),
    "user data of another challenge": ("binding_mismatch", {"user_data": OTHER}),
    "no user data": ("binding_mismatch", {"user_data": None}),
    "hardware vouches for something else": ("binding_mismatch", {"hardware_data": OTHER}),
    "other runtime data": ("binding_mismatch", lambda each: {"variable_data": each.vtpm.runtime_data(b"\1")}),
    "report of another kind of TEE": ("evidence_malformed", {"hcl": {"report_type": 3}}),
    "report with an error": ("evidence_malformed", {"hcl": {"status": 1}}),
    "no attestation key": ("evidence_malformed", {"runtime": {"keys": []}}),
    "quote of another key": ("signature_invalid", {"quote": {"signer": OTHER_RSA}}),
    "quote of another scheme": ("signature_invalid", {"quote": {"pss": True}}),
    "no quote": ("evidence_malformed", {"quote": {"kind": 0x8017}}),
    "quote over fewer registers": ("evidence_malformed", {"quote": {"selection": range(23)}}),
    "quote over SHA-1": ("evidence_malformed", {"quote": {"bank": 4}}),
    "other registers than quoted": ("signature_invalid", lambda each: {"pcrs": each.vtpm.pcrs(bytes(32))}),
    "fewer registers than quoted": ("evidence_malformed", lambda each: {"pcrs": each.vtpm.pcrs()[:9]}),
}
_VTPM_UNSAFE: Final[dict[str, Keywords]] = {"secure boot off": {"runtime": {"secure_boot": False}}}

WRONG: Final[dict[Tee, dict[str, tuple[str, Keywords]]]] = {
    Tee.SNP: {
        **_SNP_REPORT,
        # the JSON form has no place for them, so what is put together again is not what was signed
        "reserved octets": ("signature_invalid", {"reserved": {0x4C: 1}}),
        "certificate of another vendor": ("chain_invalid", {"vek": OTHER_AMD.certificate()}),
        "no certificate, nor one to be had": ("endorsement_missing", {"vek": None}),
    },
    Tee.AZ_SNP_VTPM: {
        **_SNP_REPORT,
        **_VTPM,
        "certificate of another vendor": ("chain_invalid", {"vcek": OTHER_AMD.certificate()}),
        "no certificate, nor one to be had": ("endorsement_missing", {"vcek": None}),
    },
    Tee.TDX: {
        **_TD,
        "another log": ("event_log_malformed", {"log": b"\1" * 64}),
        "log without its end": ("event_log_malformed", lambda each: {"log": each.log.to_bytes()[:-40]}),
        "other registers than the log's": ("event_log_mismatch", {"fields": {"rtmr_1": b"\1" * 48}}),
    },
    Tee.AZ_TDX_VTPM: {
        **_TD,
        **_VTPM,
        "no quote of the hardware": ("evidence_version_unsupported", {"td_quote": b""}),
        "something behind": ("evidence_malformed", {"padding": b"\1"}),
        "TD report of something else": ("evidence_version_unsupported", {"report": {"kind": b"\0\0\0\0"}}),
        "TD report of another TD": ("tcb_mismatch", {"report": {"td": {16: b"\1" * 48}}}),
    },
    Tee.SGX: {
        **_INTEL,
        "another kind of TEE": ("evidence_malformed", {"version": 4, "tee_type": 0x81}),
        "another way to certify": ("evidence_version_unsupported", {"version": 4, "outer_type": 5}),
        "not initialised": ("evidence_malformed", {"fields": {"flags": 1 << 2}}),
    },
    Tee.CCA: {
        "realm signed by another key": ("signature_invalid", {"realm_message": {"key": OTHER_P384}}),
        "platform signed by another key": ("signature_invalid", {"platform_message": {"key": OTHER_P384}}),
        "realm changed after it was signed": ("signature_invalid", {"realm_message": {"flip": 5}}),
        "realm of another challenge": ("binding_mismatch", {"realm": {10: OTHER}}),
        "platform that nobody enrolled": ("signer_not_trusted", {"platform": {2396: bytes(32)}}),
        "platform that vouches for another realm": ("signature_invalid", {"platform": {10: bytes(32)}}),
        "a lifecycle that does not exist": ("evidence_malformed", {"platform": {2395: 0x7000}}),
        "no lifecycle": ("evidence_malformed", {"platform": {2395: NO_CLAIM}}),
        "no realm": ("evidence_malformed", {"collection": {44241: NO_CLAIM}}),
        "another kind of token": ("evidence_malformed", {"tag": 398}),
    },
    Tee.CSV: {
        "signed by another key": ("signature_invalid", {"signer": OTHER_CHIP.pek}),
        "changed after it was signed": ("signature_invalid", {"after": {150: b"\0"}}),
        "another serial number": ("tcb_mismatch", {"serial": b"TESTSN00000002"}),
        "another serial number in the report": ("tcb_mismatch", {"signer_serial": b"TESTSN00000002"}),
        "a path for a serial number": ("evidence_malformed", {"serial": b"../TESTSN", "signer_serial": b"../TESTSN"}),
        "PEK of another vendor": ("chain_invalid", {"pek": OTHER_CHIP.pek_certificate(), "signer": OTHER_CHIP.pek}),
        "signed with a CEK": ("evidence_version_unsupported", {"sig_usage": CEK}),
        "no known version": ("evidence_version_unsupported", {"magic": b"X" * 16, "flags": 7}),
        "register that is not the measurement": ("tcb_mismatch", {"rtmr0": bytes(32)}),
        "other registers than the log's": ("event_log_mismatch", {"rtmr1": b"\1" * 32}),
        "another log": ("event_log_malformed", {"log": b"\1" * 64}),
    },
    Tee.HYGON_DCU: {
        "signed by another vendor": (
            "signature_invalid",
            lambda each: {"signer": OTHER_DCU.vendor.cek(each.chips[0])},
        ),
        "another version": ("evidence_version_unsupported", {"version": 2}),
        "signed by a PEK": ("evidence_version_unsupported", {"sig_usage": 0x1002}),
        "a path for a chip id": ("evidence_malformed", {"chip_id": b"../../etc/passwd"}),
        "no device": ("evidence_malformed", {"chips": ()}),
        "a device twice": ("evidence_malformed", lambda each: {"chips": each.chips * 2}),
    },
    Tee.NITRO: {
        "signed by another key": ("signature_invalid", {"signer": OTHER_P384}),
        "another algorithm": ("evidence_version_unsupported", {"algorithm": -7}),
        "another tag": ("evidence_malformed", {"tag": 17}),
        "changed after it was signed": ("signature_invalid", {"flip": -1}),
        "another challenge": ("binding_mismatch", {"members": {"nonce": OTHER}}),
        "no nonce": ("binding_mismatch", {"members": {"nonce": None}}),
        "an hour old": (
            "endorsement_expired",
            lambda each: {"members": {"timestamp": int(each.clock().timestamp() * 1000) - 3_601_000}},
        ),
        "no chain": ("evidence_malformed", {"members": {"cabundle": ABSENT}}),
        "registers of 32 octets": ("evidence_malformed", {"registers": {0: bytes(32)}}),
    },
    Tee.SE: {
        "measured with another key": ("signature_invalid", {"key": bytes(64)}),
        "another image": ("signature_invalid", {"tags": bytes(208)}),
        "another machine": ("signature_invalid", {"cuid": bytes(16)}),
        "another challenge": ("binding_mismatch", {"measured": {"user_data": OTHER}}),
        "host keys of others": ("signer_not_trusted", {"measured": {"additional_data": bytes(64)}}),
        "another measurement": ("signature_invalid", {"measurement": bytes(64)}),
        "another secret sent back": ("signature_invalid", {"encr_request_nonce": bytes(512)}),
    },
    Tee.TPM: {
        "quote of another challenge": ("binding_mismatch", {"nonce": OTHER[:32]}),
        "made outside of the TPM": ("evidence_malformed", {"magic": 0}),
        "no quote": ("evidence_malformed", {"kind": 0x8017}),
        "quote over fewer registers": ("evidence_malformed", {"selections": (("sha256", range(23)),)}),
        "quote over SHA-1": ("evidence_malformed", {"selections": (("sha1", range(24)),)}),
        "other registers than quoted": (
            "signature_invalid",
            lambda each: {"pcrs": [*each.bank.values[:-1], b"\1" * 32]},
        ),
        "digest of other registers": ("signature_invalid", {"quoted": [bytes(32)] * 24}),
        "signed with SHA-1": ("signature_invalid", {"signing_hash": "sha1"}),
        "signed by another key": ("signature_invalid", {"signer": OTHER_RSA}),
        "changed after it was signed": ("signature_invalid", {"flip_signature": True}),
        "something behind": ("evidence_malformed", {"tail": b"\0"}),
        "a key that nobody enrolled": ("signer_not_trusted", {"ak": spki(OTHER_RSA.public_key())}),
        "log that leaves something out": (
            "event_log_mismatch",
            lambda each: {"log": each.event_log(without=(0,))},
        ),
        "another log": ("event_log_malformed", {"log": b"\1" * 64}),
        "a list of IMA's that is none": ("event_log_malformed", {"ima_log": b"\1"}),
    },
}

UNSAFE: Final[dict[Tee, dict[str, Keywords]]] = {
    Tee.SNP: {**_SNP_UNSAFE, "TCB out of date": _old_snp},
    Tee.AZ_SNP_VTPM: {
        **_SNP_UNSAFE,
        **_VTPM_UNSAFE,
        "TCB out of date": _old_azure,
        "policy that was not approved": {"policy": POLICY & ~(1 << 16)},
        "platform without the settings that were approved": {"plat_info": 0x00},
    },
    Tee.TDX: {
        **_INTEL_UNSAFE,
        **_TD_UNSAFE,
        "SEPT_VE_DISABLE clear": {"fields": {"td_attributes": 0}},
    },
    Tee.AZ_TDX_VTPM: {**_INTEL_UNSAFE, **_TD_UNSAFE, **_VTPM_UNSAFE},
    Tee.SGX: {
        **_INTEL_UNSAFE,
        "debug": {"fields": {"flags": 0b111}},
        "another enclave": {"fields": {"mr_enclave": bytes(32)}},
    },
    Tee.CCA: {
        "platform in debug mode": {"platform": {2395: 0x4001}},
        "platform that is not provisioned": {"platform": {2395: 0x2000}},
        "platform of another configuration": {"platform": {2401: b"\1"}},
        "another realm": {"realm": {44238: bytes(64)}},
    },
    Tee.CSV: {
        "debug": {"policy": 0x0203006C},
        "may be sent elsewhere": {"policy": 0x02030065},
        "another measurement": {"measure": bytes(32), "rtmr0": bytes(32)},
    },
    Tee.HYGON_DCU: {"another measurement": {"measure": bytes(32)}},
    Tee.NITRO: {"debug": {"is_debug": True}, "another image": {"registers": {0: b"\1" * 48}}},
    Tee.SE: {},
    Tee.TPM: {"no log, and another kernel": _other_kernel},
}

HARMLESS: Final[dict[Tee, dict[str, Keywords]]] = {
    # registers that were approved are enough; `tdx_require_event_log` asks for more
    Tee.TDX: {"no log": {"log": None}, "quote of version 5": {"version": 5}, "zeros behind": {"trailing": bytes(64)}},
    Tee.SGX: {"quote of version 4": {"version": 4}, "quote of version 5": {"version": 5}},
    # what Hygon serves for the serial number goes before what the guest brings
    Tee.CSV: {"HSK and CEK of another vendor": {"hsk_cek": OTHER_CHIP.hsk_cek}},
}
"""Unusual, and neither wrong nor unsafe."""

NOT_WRONG: Final = frozenset({"pek", "masks_signer", "anonce", "clock", "descriptor", "auth_data", "chain"})
