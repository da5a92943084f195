"""VEK certificates: every link and member made wrong in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.endorsements.amd import TcbVersion, VekKind
from kbs.attestation.endorsements.amd_roots import AmdRoots, roots_from_anchors
from kbs.attestation.sev.chain import ChainVerifier
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.snp import CSP_ID, SoftwareSnp, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import ChainInvalid, EndorsementExpired, EvidenceRejected, TcbMismatch

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


@cache
def attester(product: str = "Milan", kind: str = "vcek") -> SoftwareSnp:
    return SoftwareSnp(product=product, kind=kind)


@cache
def roots(product: str = "Milan") -> AmdRoots:
    (found,) = roots_from_anchors(attester(product).anchors).values()
    return found


def verify(data: bytes, kind: VekKind = VekKind.VCEK, product: str = "Milan") -> Any:
    return ChainVerifier().verify(data, kind, roots(product), AT)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_vcek_is_read(product: str) -> None:
    found = verify(attester(product).certificate(), product=product)
    assert found.tcb == attester(product).tcb
    assert found.tcb.microcode == 219
    assert found.hwid == attester(product).chip_id[: 8 if product == "Turin" else 64]
    assert found.csp_id is None
    assert found.serials == {0, 0x10000, 0x10001}


def test_vlek_is_read() -> None:
    found = verify(attester("Milan", "vlek").certificate(), VekKind.VLEK)
    assert (found.csp_id, found.hwid) == (CSP_ID, None)
    assert found.serials == {0, 0x10000, 0x10101}


@pytest.mark.parametrize("name", ["Milan-B0", "Milan", "Milan-B1"])
def test_product_with_or_without_stepping(name: str) -> None:
    assert verify(attester().certificate(product_name=name)).product == "Milan"


def test_hwid_as_octet_string() -> None:
    chip = attester().chip_id
    assert verify(attester().certificate(hwid=b"\x04\x40" + chip)).hwid == chip


def test_pem_is_read() -> None:
    pem = load_certificate(attester().certificate()).public_bytes(Encoding.PEM)
    assert verify(pem).tcb == attester().tcb
    assert verify(pem.replace(b"\n", b"\r\n") + b"\r\n \n").tcb == attester().tcb


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: pem + b"junk",
        lambda pem: pem + pem,
        lambda pem: pem + load_certificate(SoftwareSnp().certificate()).public_bytes(Encoding.PEM),
        lambda pem: b"\n" + pem,
        lambda pem: b"junk\n" + pem,
        lambda pem: pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        lambda pem: pem.replace(b"-----\n", b"-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
        lambda pem: pem.replace(b"-----BEGIN", b"-----BEGIN X509 CRL-----\n-----BEGIN", 1),
        lambda pem: pem[:-40],
    ],
)
def test_pem_is_one_block_and_nothing_else(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ChainInvalid):
        verify(spoil(load_certificate(attester().certificate()).public_bytes(Encoding.PEM)))


WRONG: dict[str, dict[str, Any]] = {
    "another product's name": {"product_name": "Genoa-B1"},
    "a product nobody knows": {"product_name": "Milan-B0-evil"},
    "stepping in small letters": {"product_name": "Milan-b0"},
    "no product": {"without": ["2"]},
    "no structure version": {"without": ["1"]},
    "unknown structure version": {"replaced": {"1": b"\x02\x01\x02"}},
    "no bootloader": {"without": ["3.1"]},
    "no microcode": {"without": ["3.8"]},
    "microcode beyond a byte": {"replaced": {"3.8": b"\x02\x02\x01\x00"}},
    "negative microcode": {"replaced": {"3.8": b"\x02\x01\xff"}},
    "trailing byte in microcode": {"replaced": {"3.8": b"\x02\x01\x01\x00"}},
    "microcode of another type": {"replaced": {"3.8": b"\x04\x01\x01"}},
    "empty microcode": {"replaced": {"3.8": b""}},
    "fmc on Milan": {"replaced": {"3.9": b"\x02\x01\x01"}},
    "no hardware id": {"without": ["4"]},
    "short hardware id": {"hwid": b"\1" * 63},
    "long hardware id": {"hwid": b"\1" * 65},
    "Turin's hardware id": {"hwid": b"\1" * 8},
    "short hardware id in an OCTET STRING": {"hwid": b"\x04\x08" + b"\1" * 8},
    "another subject": {"common_name": "SEV-VLEK"},
    "the name upstream waited for": {"common_name": "VCEK"},
    "an RSA key": {"key": TestRoot().rsa("another").public_key()},
    "a key on P-256": {"key": ec.generate_private_key(ec.SECP256R1()).public_key()},
    "a key on P-521": {"key": ec.generate_private_key(ec.SECP521R1()).public_key()},
    "an unknown signer": {"issuer_key": TestRoot().rsa("unknown")},
    "the root as signer": {"issuer_key": TestRoot().rsa("snp-ark")},
    "another salt length": {"salt": 32},
    "a CA": {"extra": [(x509.BasicConstraints(ca=True, path_length=None), True)]},
    "an unknown critical extension": {
        "extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    },
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_wrong_certificates_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ChainInvalid):
        verify(attester().certificate(**changes))


def test_an_unknown_extension_that_is_not_critical_is_not_looked_at() -> None:
    extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False)]
    assert verify(attester().certificate(extra=extra)).tcb == attester().tcb


@pytest.mark.parametrize("part", ["ark", "intermediate", "vek"])
@pytest.mark.parametrize("kind", list(VekKind))
def test_one_second_past_each_validity(part: str, kind: VekKind) -> None:
    """Also of the roots, and also of what is remembered."""
    window = (AT - timedelta(days=1), AT + timedelta(days=1))
    snp = SoftwareSnp(kind=str(kind), validities=replace(Validities(), **{part: window}))
    (pinned,) = roots_from_anchors(snp.anchors).values()
    chains, data = ChainVerifier(), snp.certificate()
    for moment in window:
        assert chains.verify(data, kind, pinned, moment).kind is kind
    for moment in (window[0] - timedelta(seconds=1), window[1] + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            chains.verify(data, kind, pinned, moment)


def test_one_certificate_in_many_spellings_is_remembered_once() -> None:
    """PEM can be written in any number of ways; none of them may push other chips' keys out of the memory."""
    chains = ChainVerifier()
    der = attester().certificate()
    pem = load_certificate(der).public_bytes(Encoding.PEM)
    for spelling in (der, pem, pem + b"\n", pem.replace(b"\n", b"\r\n"), pem.replace(b"MII", b"M\nII"), pem + b" \t\n"):
        assert chains.verify(spelling, VekKind.VCEK, roots(), AT).tcb == attester().tcb
    assert len(chains._known) == 1


def test_spare_tcb_component_is_refused() -> None:
    with pytest.raises(TcbMismatch):
        verify(attester().certificate(replaced={"3.4": b"\x02\x01\x01"}))


def test_turin_needs_fmc() -> None:
    with pytest.raises(ChainInvalid):
        verify(attester("Turin").certificate(without=["3.9"]), product="Turin")


def test_vlek_needs_a_provider() -> None:
    with pytest.raises(ChainInvalid):
        verify(attester("Milan", "vlek").certificate(without=["5"]), VekKind.VLEK)


@pytest.mark.parametrize(("made", "taken"), [("vcek", VekKind.VLEK), ("vlek", VekKind.VCEK)])
def test_kinds_do_not_stand_in_for_each_other(made: str, taken: VekKind) -> None:
    with pytest.raises(ChainInvalid):
        verify(attester("Milan", made).certificate(), taken)


def test_vlek_without_asvk_is_refused() -> None:
    anchors = {role: text for role, text in attester().anchors.items() if role != "asvk"}
    (without,) = roots_from_anchors(anchors).values()
    with pytest.raises(ChainInvalid):
        ChainVerifier().verify(attester("Milan", "vlek").certificate(), VekKind.VLEK, without, AT)


def test_another_products_roots_are_refused() -> None:
    with pytest.raises(ChainInvalid):
        verify(attester("Genoa").certificate(), product="Milan")


def test_authorities_are_no_endorsement_keys() -> None:
    for certificate in (attester().ark, attester().ask, attester().asvk):
        with pytest.raises(ChainInvalid):
            verify(certificate.public_bytes(Encoding.DER))


def test_dates_are_checked_on_remembered_certificates_and_memory_is_bounded() -> None:
    chains = ChainVerifier(size=2)
    data = [attester().certificate(tcb=TcbVersion(1, 0, 1, n)) for n in range(4)]
    for der in data:
        assert chains.verify(der, VekKind.VCEK, roots(), AT).product == "Milan"
    assert len(chains._known) == 2
    with pytest.raises(EvidenceRejected):
        chains.verify(data[-1], VekKind.VCEK, roots(), datetime(2049, 1, 2, tzinfo=UTC))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_change_of_a_certificate_is_refused(data: st.DataObject) -> None:
    der = bytearray(CERTIFICATE)
    offset = data.draw(st.integers(0, len(der) - 1))
    der[offset] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EvidenceRejected):
        verify(bytes(der))


@given(st.binary(max_size=64) | st.text(max_size=20).map(lambda text: b"-----BEGIN" + text.encode()))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(ChainInvalid):
        verify(data)


CERTIFICATE = attester().certificate()
