"""Quotes are read field by field, and what is no quote is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.dcap import EnclaveReport, TdReport, parse_quote
from kbs.attestation.dcap.quote import MAX_QUOTE
from kbs.attestation.endorsements.intel import IntelTee
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.errors import EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported

NONCE = b"n" * 48
TD = SoftwareTdx()
ENCLAVE = SoftwareSgx()
TD_FIELDS = {
    "tee_tcb_svn": 16, "mr_seam": 48, "mrsigner_seam": 48, "seam_attributes": 8, "td_attributes": 8, "xfam": 8,
    "mr_td": 48, "mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48, "report_data": 64,
}  # fmt: skip
ENCLAVE_FIELDS = {
    "cpu_svn": 16, "misc_select": 4, "isv_ext_prod_id": 16, "flags": 8, "xfrm": 8, "mr_enclave": 32, "mr_signer": 32,
    "config_id": 64, "isv_family_id": 16, "report_data": 64,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), TD_FIELDS.items())
def test_fields_of_a_td(name: str, size: int) -> None:
    value = bytes(range(1, size + 1))
    body = parse_quote(TD.quote(NONCE, fields={name: value})).body
    assert getattr(body, name) == value


def test_a_td_10_report_has_no_later_fields() -> None:
    quote = parse_quote(TD.quote(NONCE))
    assert isinstance(quote.body, TdReport)
    assert quote.body.rtmrs == TD.log.rtmrs()
    assert (quote.tee, quote.version, quote.descriptor) == (IntelTee.TDX, 4, b"")
    assert (quote.body.tee_tcb_svn2, quote.body.mr_servicetd) == (None, None)
    assert len(quote.signed) == 48 + 584


def test_a_td_15_report_has_them() -> None:
    fields: dict[str, int | bytes] = {"tee_tcb_svn2": b"2" * 16, "mr_servicetd": b"s" * 48}
    quote = parse_quote(TD.quote(NONCE, version=5, fields=fields))
    assert isinstance(quote.body, TdReport)
    assert (quote.body.tee_tcb_svn2, quote.body.mr_servicetd) == (b"2" * 16, b"s" * 48)
    assert len(quote.signed) == 48 + 6 + 648


def test_version_5_may_carry_a_td_10_report() -> None:
    quote = parse_quote(TD.quote(NONCE, version=5, body_type=2))
    assert isinstance(quote.body, TdReport)
    assert quote.body.mr_servicetd is None


@pytest.mark.parametrize(("name", "size"), ENCLAVE_FIELDS.items())
def test_fields_of_an_enclave(name: str, size: int) -> None:
    value = bytes(range(1, size + 1))
    assert getattr(parse_quote(ENCLAVE.quote(NONCE, fields={name: value})).body, name) == value


@pytest.mark.parametrize("name", ["isv_prod_id", "isv_svn", "config_svn"])
def test_numbers_of_an_enclave(name: str) -> None:
    assert getattr(parse_quote(ENCLAVE.quote(NONCE, fields={name: 0x1234})).body, name) == 0x1234


@pytest.mark.parametrize("version", [3, 4, 5])
def test_enclaves_have_quotes_of_every_version(version: int) -> None:
    quote = parse_quote(ENCLAVE.quote(NONCE, version=version))
    assert isinstance(quote.body, EnclaveReport)
    assert (quote.tee, quote.version) == (IntelTee.SGX, version)
    assert quote.body.raw in quote.signed


@pytest.mark.parametrize("name", ["reserved1", "reserved2", "reserved3", "reserved4"])
@pytest.mark.parametrize("of", ["fields", "qe"])
def test_reserved_bytes_are_zero(name: str, of: str) -> None:
    size = {"reserved1": 12, "reserved4": 42}.get(name, 32)
    changes: dict[str, Any] = {of: {name: bytes(size - 1) + b"\1"}}
    raw = ENCLAVE.quote(NONCE, **changes)
    if of == "fields":
        with pytest.raises(EvidenceMalformed, match="reserved"):
            parse_quote(raw)
    else:
        assert parse_quote(raw).qe_report  # read when its signature is right: test_verification


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"version": 6}, {"version": 0}, {"key_type": 3}, {"key_type": 0}, {"tee_type": 0x82},
        {"version": 3}, {"tee_type": 0x0100_0081}, {"vendor": bytes(16)}, {"certification_type": 3},
        {"certification_type": 1}, {"certification_type": 7}, {"outer_type": 5}, {"version": 5, "body_type": 4},
        {"version": 5, "body_type": 0x103},
    ],
    ids=str,
)  # fmt: skip
def test_what_nobody_knows_is_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        parse_quote(TD.quote(NONCE, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 5, "body_type": 1}, {"version": 5, "body_size": 584}, {"version": 5, "body_size": 649},
        {"version": 5, "body_type": 2, "body_size": 648}, {"version": 5, "body_size": 1},
    ],
    ids=str,
)  # fmt: skip
def test_type_and_size_of_the_body_agree(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_quote(TD.quote(NONCE, **changes))


@pytest.mark.parametrize("make", [TD.quote, ENCLAVE.quote])
def test_every_cut_is_refused(make: Callable[[bytes], bytes]) -> None:
    good = make(NONCE)
    for size in range(len(good)):
        with pytest.raises(EvidenceMalformed):
            parse_quote(good[:size])


def test_trailing_bytes() -> None:
    for trailing in (b"\0", bytes(70), b"\1", bytes(69) + b"\1", b"\n"):
        raw = TD.quote(NONCE, trailing=trailing)
        with pytest.raises(EvidenceMalformed, match="behind its signature section"):
            parse_quote(raw)
        if any(trailing):
            with pytest.raises(EvidenceMalformed):
                parse_quote(raw, allow_trailing_bytes=True)
        else:
            assert parse_quote(raw, allow_trailing_bytes=True).trailing == len(trailing)
    assert parse_quote(TD.quote(NONCE), allow_trailing_bytes=True).trailing == 0


def test_bytes_inside_the_signature_section_are_all_accounted_for() -> None:
    """A longer section, outer or inner data leaves bytes that nothing reads."""
    good = TD.quote(NONCE)
    for offset in (632, 632 + 4 + 128 + 2):
        length = int.from_bytes(good[offset : offset + 4], "little")
        longer = good[:offset] + (length + 1).to_bytes(4, "little") + good[offset + 4 :] + b"\0"
        with pytest.raises(EvidenceMalformed):
            parse_quote(longer)
        shorter = good[:offset] + (length - 1).to_bytes(4, "little") + good[offset + 4 :]
        with pytest.raises(EvidenceMalformed):
            parse_quote(shorter, allow_trailing_bytes=True)
        huge = good[:offset] + b"\xff\xff\xff\xff" + good[offset + 4 :]
        with pytest.raises(EvidenceMalformed):
            parse_quote(huge)


def test_long_quotes_are_refused() -> None:
    with pytest.raises(EvidenceMalformed, match="too long"):
        parse_quote(TD.quote(NONCE, trailing=bytes(MAX_QUOTE)), allow_trailing_bytes=True)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    for prefix in (b"", TD.quote(NONCE)[:632], ENCLAVE.quote(NONCE)[:432]):
        with pytest.raises(EvidenceRejected):
            parse_quote(prefix + data)
