"""The SGX verifier around the core: binding, attributes, settings."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Evidence, VerifiedClaims, VerifierOptions
from kbs.attestation.verifiers import sgx
from kbs.client.attesters.sgx import DEBUG, INIT, MODE64, SoftwareSgx
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import BindingMismatch, ConfigInvalid, EvidenceMalformed, EvidenceRejected, InitDataMismatch
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = bytes(range(48))
ENCLAVE = SoftwareSgx()
BUNDLE = ENCLAVE.endorsements
VERIFIER = sgx.build(VerifierOptions({}, ENCLAVE.anchors))


def verify(body: Any, binding: Binding | None = None) -> VerifiedClaims:
    evidence = Evidence(Tee.SGX, body)
    (found,) = VERIFIER.verify(evidence, VERIFIER.endorsements_from(evidence, BUNDLE), binding or Binding(NONCE), AT)
    return found


@pytest.mark.parametrize("version", [3, 4, 5])
def test_claims_of_a_good_enclave(version: int) -> None:
    fields: dict[str, int | bytes] = {"isv_prod_id": 0x0102, "isv_svn": 3, "config_svn": 4, "misc_select": 5}
    found = verify(ENCLAVE.evidence(NONCE, bytes(32), version=version, fields=fields)).claims
    assert found["header"]["version"] == f"0{version}00"
    assert found["header"]["vendor_id"] == "939a7233f79c4ca9940a0db3957f0607"
    assert found["body"] == {
        "cpu_svn": "0a" * 16, "misc_select": "05000000", "reserved1": "00" * 12, "isv_ext_prod_id": "00" * 16,
        "attributes.flags": "0500000000000000", "attributes.xfrm": "e700000000000000", "mr_enclave": "3e" * 32,
        "reserved2": "00" * 32, "mr_signer": "35" * 32, "reserved3": "00" * 32, "config_id": "00" * 64,
        "isv_prod_id": "0201", "isv_svn": "0300", "config_svn": "0400", "reserved4": "00" * 42,
        "isv_family_id": "00" * 16, "report_data": NONCE.ljust(64, b"\0").hex(),
    }  # fmt: skip
    assert (found["debug"], found["binding"], found["revocation"]) == (False, "checked", "checked")


def test_debug_is_told() -> None:
    assert verify(ENCLAVE.evidence(NONCE, fields={"flags": INIT | MODE64 | DEBUG})).claims["debug"] is True


@pytest.mark.parametrize("flags", [0, INIT, MODE64, DEBUG])
def test_an_enclave_is_initialised_and_of_64_bits(flags: int) -> None:
    with pytest.raises(EvidenceMalformed, match="initialised"):
        verify(ENCLAVE.evidence(NONCE, fields={"flags": flags}))


@pytest.mark.parametrize("place", [0, 47, 48, 63])
def test_all_of_the_report_data_is_compared(place: int) -> None:
    report_data = bytearray(NONCE.ljust(64, b"\0"))
    report_data[place] ^= 1
    with pytest.raises(BindingMismatch):
        verify(ENCLAVE.evidence(bytes(report_data)))


@pytest.mark.parametrize("size", [32, 48, 64])
def test_init_data_of_any_digest(size: int) -> None:
    """Filled with zeros to the 64 bytes of CONFIGID."""
    digest = bytes(range(100, 100 + size))
    evidence = ENCLAVE.evidence(NONCE, digest)
    assert verify(evidence, Binding(NONCE, digest)).claims["init_data"] == digest.ljust(64, b"\0").hex()
    for other in (digest[:31], digest[1:], digest[:-1], b""):
        with pytest.raises(InitDataMismatch):
            verify(evidence, Binding(NONCE, other))


@pytest.mark.parametrize("body", [{"quote": None}, {"quote": "!"}, {"quote": "AAAA"}, {}, [], None, b"", "AAAA"])
def test_what_is_no_evidence(body: Any) -> None:
    with pytest.raises(EvidenceRejected):
        VERIFIER.needs(Evidence(Tee.SGX, body))


def test_a_td_is_no_enclave() -> None:
    with pytest.raises(EvidenceMalformed):
        VERIFIER.needs(Evidence(Tee.SGX, SoftwareTdx(ENCLAVE.intel.root).quote(NONCE)))


def test_what_needs_read_serves_only_the_same_evidence() -> None:
    one, other = Evidence(Tee.SGX, ENCLAVE.evidence(NONCE)), Evidence(Tee.SGX, ENCLAVE.evidence(bytes(48)))
    given = VERIFIER.endorsements_from(one, BUNDLE)
    assert VERIFIER.needs(one)
    with pytest.raises(BindingMismatch):
        VERIFIER.verify(other, given, Binding(NONCE), AT)
    assert VERIFIER.needs(one)
    assert len(VERIFIER.verify(one, given, Binding(NONCE), AT)) == 1


@pytest.mark.parametrize("options", [{"tdx_allow_sept_ve": True}, {"allow_trailing_bytes": 1}, {"unknown": 0}])
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        sgx.build(VerifierOptions(options))


def test_options_of_the_core() -> None:
    options = {"allow_trailing_bytes": True, "allow_unchecked_revocation": ["sgx"], "dcap_min_evaluation_number": 3}
    verifier = sgx.build(VerifierOptions(options, ENCLAVE.anchors))
    evidence = Evidence(Tee.SGX, ENCLAVE.evidence(NONCE, trailing=bytes(9)))
    given = verifier.endorsements_from(evidence, {"collateral": ENCLAVE.intel.collateral("SGX", pck_crl=None)})
    (found,) = verifier.verify(evidence, given, Binding(NONCE), AT)
    assert found.claims["trailing_bytes"] == 9
    assert (found.claims["revocation"], found.claims["revocation_waived"]) == ("not_checked", True)


def test_a_thousand_mutated_evidences() -> None:
    """Cut, extended, flipped, and mixed from two good ones: refused with a class of its own, and nothing else."""
    mixer = random.Random(2)
    one, two = ENCLAVE.quote(NONCE), SoftwareSgx(TestRoot()).quote(bytes(48))
    given = VERIFIER.endorsements_from(Evidence(Tee.SGX, one), BUNDLE)
    chain, root = one.index(b"-----BEGIN"), one.rindex(b"-----BEGIN")
    mutants: list[bytes] = []
    for limits, count in (((0, chain), 400), ((chain, root), 150)):
        for _ in range(count):
            flipped = bytearray(one)
            flipped[mixer.randrange(*limits)] ^= 1 << mixer.randrange(8)
            mutants.append(bytes(flipped))
    mutants += [one[: mixer.randrange(len(one))] for _ in range(250)]
    mutants += [one + mixer.randbytes(mixer.randrange(1, 100)) for _ in range(50)]
    for _ in range(250):
        start = mixer.randrange(root - 1)
        end = mixer.randrange(start + 1, root)
        mutants.append(one[:start] + two[start:end] + one[end:])
    refused = 0
    for quote in (mutant for mutant in mutants if mutant != one):
        evidence = Evidence(Tee.SGX, {"quote": base64.b64encode(quote).decode()})
        with pytest.raises(EvidenceRejected) as error:
            VERIFIER.verify(evidence, given, Binding(NONCE), AT)
        assert error.type is not EvidenceRejected
        refused += 1
    assert refused >= 1000
