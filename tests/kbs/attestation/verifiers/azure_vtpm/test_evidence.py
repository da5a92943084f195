"""The JSON forms of Azure evidence: versions, spellings, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.verifiers.azure_vtpm.evidence import Presented, read_snp, read_tdx
from kbs.errors import EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported

HEX = {"signature": "0aFF", "message": "", "pcrs": ["00", "01"]}
NUMBERS = {"signature": [10, 255], "message": [], "pcrs": [[0], [1]]}
SNP_0 = {"quote": NUMBERS, "report": [1, 2, 255], "vcek": "-----BEGIN CERTIFICATE-----"}
SNP_2 = {"version": 2, "tpm_quote": HEX, "hcl_report": "AQL_", "vcek": "AAE"}
TDX_0 = {"tpm_quote": NUMBERS, "hcl_report": [1, 2, 255], "td_quote": [4, 0]}
TDX_2 = {"version": 2, "tpm_quote": HEX, "hcl_report": "AQL_", "td_quote": "BAA"}


def test_all_forms_say_the_same() -> None:
    for found in (read_snp(SNP_0, 0), read_snp(SNP_2, 2), read_tdx(TDX_0, 0), read_tdx(TDX_2, 2)):
        assert found.tpm_quote.signature == b"\x0a\xff"
        assert found.tpm_quote.message == b""
        assert found.tpm_quote.pcrs == (b"\0", b"\1")
        assert found.hcl_report == b"\1\2\xff"
    assert read_snp(SNP_0, 0).vcek == b"-----BEGIN CERTIFICATE-----"
    assert read_snp(SNP_2, 0).vcek == b"\0\1"
    assert read_tdx(TDX_0, 0).td_quote == read_tdx(TDX_2, 0).td_quote == b"\4\0"


@pytest.mark.parametrize("stated", [1, 2, "1", "2"])
def test_versions_are_numbers_or_texts(stated: Any) -> None:
    assert read_snp({**SNP_2, "version": stated}, 0).version == int(stated)
    assert read_tdx({**TDX_2, "version": stated}, 0).version == int(stated)


@pytest.mark.parametrize("stated", [0, "0", 3, -1, "3", "", "02", " 2", "2.0", 1 << 70])
def test_unknown_versions(stated: Any) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        read_snp({**SNP_2, "version": stated}, 0)


@pytest.mark.parametrize("stated", [None, True, False, 2.0, [2], {}])
def test_versions_of_another_type(stated: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read_snp({**SNP_2, "version": stated}, 0)


@pytest.mark.parametrize(("minimum", "refused"), [(0, []), (1, [0]), (2, [0, 1])])
def test_versions_below_the_minimum(minimum: int, refused: list[int]) -> None:
    for version, body in ((0, SNP_0), (1, {**SNP_2, "version": 1}), (2, SNP_2)):
        if version in refused:
            with pytest.raises(EvidenceVersionUnsupported):
                read_snp(body, minimum)
        else:
            assert read_snp(body, minimum).version == version


def test_forms_do_not_mix() -> None:
    for body in ({**SNP_0, "version": 1}, {name: value for name, value in SNP_2.items() if name != "version"}):
        with pytest.raises(EvidenceMalformed):
            read_snp(body, 0)


def test_a_certificate_may_be_absent_and_other_members_are_ignored() -> None:
    for body in ({**SNP_2, "vcek": None, "later": [1]}, {name: SNP_2[name] for name in SNP_2 if name != "vcek"}):
        assert read_snp(body, 2).vcek is None
    assert read_snp({**SNP_0, "vcek": None}, 0).vcek is None


@pytest.mark.parametrize("text", ["AAE", "AAE="])
def test_padding_may_be_there(text: str) -> None:
    assert read_snp({**SNP_2, "vcek": text}, 2).vcek == b"\0\1"


@pytest.mark.parametrize(
    "text", ["AAF", "AAE==", "AA=", "A", "AAAAA", "A+/=", "AA E", "AAE\n", "=", "====", 1, ["AAE"], "é"]
)
def test_base64url_has_one_spelling(text: Any) -> None:
    for name in ("vcek", "hcl_report"):
        with pytest.raises(EvidenceMalformed):
            read_snp({**SNP_2, name: text}, 2)
    with pytest.raises(EvidenceMalformed):
        read_tdx({**TDX_2, "td_quote": text}, 2)


WRONG_QUOTES: list[Any] = [
    None, [], "", 1, {}, {**HEX, "pcrs": {}}, {**HEX, "pcrs": None}, {**HEX, "pcrs": ["00"] * 25}, {**HEX, "pcrs": [1]},
    {**HEX, "pcrs": ["0"]}, {**HEX, "pcrs": ["00" * 65]}, {**HEX, "message": "0x00"}, {**HEX, "message": "00 00"},
    {**HEX, "message": "00" * 1025}, {**HEX, "signature": "00" * 513}, {**HEX, "signature": [0]},
    {**HEX, "signature": None},
]  # fmt: skip


@pytest.mark.parametrize("quote", WRONG_QUOTES)
def test_malformed_quotes(quote: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read_snp({**SNP_2, "tpm_quote": quote}, 2)


@pytest.mark.parametrize("value", [None, "AA", [256], [-1], [True], [1.0], ["1"], [[1]], [0] * 70000, {}])
def test_malformed_numbers(value: Any) -> None:
    for body, name in ((SNP_0, "report"), (TDX_0, "hcl_report"), (TDX_0, "td_quote")):
        with pytest.raises(EvidenceMalformed):
            (read_snp if body is SNP_0 else read_tdx)({**body, name: value}, 0)
    for name in ("message", "signature"):
        with pytest.raises(EvidenceMalformed):
            read_snp({**SNP_0, "quote": {**NUMBERS, name: value}}, 0)


@pytest.mark.parametrize("value", [1, [0], "é", "A" * 20000])
def test_malformed_pem(value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read_snp({**SNP_0, "vcek": value}, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted({*SNP_0, *SNP_2, *TDX_2})), JSON, st.sampled_from([SNP_0, SNP_2, TDX_0, TDX_2]))
def test_any_json_raises_nothing_else(name: str, value: Any, body: dict[str, Any]) -> None:
    for read in (read_snp, read_tdx):
        for candidate in ({**body, name: value}, value):
            try:
                assert isinstance(read(candidate, 0), Presented)
            except EvidenceRejected:
                continue
