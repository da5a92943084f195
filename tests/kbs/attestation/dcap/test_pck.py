"""The PCK certificate: its chain, its role, and the platform in its extension."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.dcap.pck import PckChain, issuer_of, load_pck_chain, read_platform, verify_pck_chain
from kbs.attestation.endorsements.intel import PckCa
from kbs.attestation.x509 import PathVerifier
from kbs.client.attesters.intel import VALIDITY, SoftwareIntel
from kbs.client.attesters.intel_pck import Platform, sgx_extension
from kbs.errors import ChainInvalid

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
INTEL = SoftwareIntel()
LEAF = INTEL.pck_certificate()


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def verify(data: bytes, intel: SoftwareIntel = INTEL) -> PckChain:
    return verify_pck_chain(data, PathVerifier((intel.root_certificate,), max_length=3), AT)


GOOD = pem(*INTEL.pck_chain(LEAF))


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0", b"\n", b" \0", b"\n\0\n"])
def test_what_may_follow_the_chain(padding: bytes) -> None:
    found = verify(GOOD + padding)
    assert (found.ca, found.path.leaf) == (PckCa.PLATFORM, LEAF)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0), (1, 0, 2, 2)])
def test_the_order_does_not_matter_nor_the_root_in_it(order: tuple[int, ...]) -> None:
    chain = INTEL.pck_chain(LEAF)
    assert verify(pem(*(chain[place] for place in order))).path.certificates == tuple(chain)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"x", GOOD[:-30], GOOD + b"x", b"x" + GOOD, GOOD + b"\0x", GOOD.replace(b"CERTIFICATE", b"CRL"),
        pem(INTEL.ca_certificate, INTEL.root_certificate), pem(LEAF, LEAF, INTEL.ca_certificate), pem(LEAF),
        LEAF.public_bytes(Encoding.DER), GOOD + pem(*[INTEL.ca_certificate] * 14), b"\xff" * 100,
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_chain(data: bytes) -> None:
    with pytest.raises(ChainInvalid):
        verify(data)


def test_the_chain_of_another_vendor_is_refused() -> None:
    """Also with its own root in the quote: nothing in evidence is an anchor."""
    other = SoftwareIntel()
    for chain in (other.pck_chain(), [other.pck_certificate(), INTEL.ca_certificate, INTEL.root_certificate]):
        with pytest.raises(ChainInvalid, match="pinned root"):
            verify(pem(*chain))


def leaf(**changes: Any) -> bytes:
    return pem(INTEL.pck_certificate(**changes), INTEL.ca_certificate, INTEL.root_certificate)


def test_the_leaf_stands_in_its_role() -> None:
    for data in (
        leaf(issuer="root"),  # not by a PCK CA
        leaf(is_ca=0),
        leaf(common_name="Intel SGX TCB Signing"),
        leaf(common_name="Intel SGX PCK Certificate 2"),
        leaf(key=ec.generate_private_key(ec.SECP384R1())),
        leaf(extension=None),
        leaf(signer=INTEL.keys["root"]),
        leaf(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"), True)]),
    ):
        with pytest.raises(ChainInvalid):
            verify(data)


def test_the_ca_is_one_of_two() -> None:
    for data in (
        (
            INTEL.certificate("platform", VALIDITY, issuer="root", is_ca=0, common_name="Intel SGX TCB")
        ),  # an unknown name
        INTEL.certificate("platform", VALIDITY, issuer="root"),  # no CA
        INTEL.certificate("platform", VALIDITY, issuer="root", is_ca=0, signer=INTEL.keys["pck"]),
    ):
        with pytest.raises(ChainInvalid):
            verify(pem(LEAF, data))
    processor = SoftwareIntel(INTEL.root, ca="processor")
    assert verify(pem(*processor.pck_chain()), processor).ca is PckCa.PROCESSOR
    unknown = INTEL.certificate("pck", VALIDITY, issuer="tcb")
    with pytest.raises(ChainInvalid):
        issuer_of(unknown)


def test_the_platform() -> None:
    platform = Platform(
        fmspc=bytes(range(6)), pce_id=b"\1\2", components=tuple(range(240, 256)), pce_svn=300, sgx_type=2,
        flags=(False, True, False),
    )  # fmt: skip
    found = read_platform(INTEL.pck_certificate(platform))
    assert (found.fmspc, found.pce_id, found.components) == (platform.fmspc, platform.pce_id, platform.components)
    assert (found.pce_svn, found.cpu_svn, found.ppid) == (300, bytes(range(240, 256)), platform.ppid)
    assert (found.sgx_type, found.instance_id) == ("Scalable with Integrity", platform.instance_id)
    assert (found.dynamic_platform, found.cached_keys, found.smt_enabled) == (False, True, False)


def test_under_the_processor_ca_there_is_less() -> None:
    intel = SoftwareIntel(ca="processor", platform=Platform(sgx_type=0))
    found = read_platform(intel.pck_certificate())
    assert (found.sgx_type, found.instance_id, found.dynamic_platform) == ("Standard", None, None)


GOOD_EXTENSION = sgx_extension(Platform(), with_platform=True)


@pytest.mark.parametrize(
    "extension",
    [
        b"\5\0",
        b"\x30\0",
        GOOD_EXTENSION[:-1],
        GOOD_EXTENSION + b"\0",
        sgx_extension(replace(Platform(), sgx_type=3), with_platform=True),
        sgx_extension(Platform(), with_platform=True, type_tag=2),
        b"\x30\1\0",
        sgx_extension(replace(Platform(), pce_svn=1 << 16), with_platform=True),
        sgx_extension(replace(Platform(), pce_svn=-1), with_platform=True),
        sgx_extension(replace(Platform(), fmspc=bytes(5)), with_platform=True),
        sgx_extension(replace(Platform(), pce_id=bytes(3)), with_platform=True),
        sgx_extension(replace(Platform(), ppid=bytes(15)), with_platform=True),
        sgx_extension(replace(Platform(), instance_id=b""), with_platform=True),
        sgx_extension(replace(Platform(), components=(1,) * 15), with_platform=True),
        sgx_extension(replace(Platform(), components=(1,) * 17), with_platform=True),
        GOOD_EXTENSION.replace(bytes.fromhex("4d010d0103"), bytes.fromhex("4d010d0104")),  # FMSPC twice, no PCEID
        GOOD_EXTENSION.replace(bytes.fromhex("4d010d0103"), bytes.fromhex("4d010d0108")),  # an unknown member
        GOOD_EXTENSION.replace(bytes.fromhex("010d010203"), bytes.fromhex("010d010202")),  # one component twice
    ],
    ids=range(18),
)
def test_extensions_of_another_form_are_refused(extension: bytes) -> None:
    assert extension != GOOD_EXTENSION
    with pytest.raises(ChainInvalid):
        read_platform(INTEL.pck_certificate(extension=extension))


@settings(max_examples=150, deadline=None)
@given(offset=st.integers(0, len(GOOD_EXTENSION) - 1), value=st.integers(0, 255))
def test_any_byte_of_the_extension_raises_nothing_else(offset: int, value: int) -> None:
    changed = bytearray(GOOD_EXTENSION)
    changed[offset] = value
    with suppress(ChainInvalid):
        found = read_platform(INTEL.pck_certificate(extension=bytes(changed)))
        assert len(found.components) == 16


def test_reading_without_trust() -> None:
    found, others = load_pck_chain(GOOD)
    assert (found, len(others)) == (LEAF, 2)
    assert issuer_of(found) is PckCa.PLATFORM


def test_a_damaged_issuer_name_is_refused_and_not_an_accident() -> None:
    """The library reads names when they are asked for, long after it took the certificate."""
    der = LEAF.public_bytes(Encoding.DER)
    at = der.index(b"Intel SGX PCK Platform CA")
    damaged = x509.load_der_x509_certificate(der[:at] + b"\xff" + der[at + 1 :])
    with pytest.raises(ChainInvalid, match="issuer"):
        issuer_of(damaged)
    with pytest.raises(ChainInvalid):
        verify(pem(damaged, INTEL.ca_certificate))
