"""Names of AMD endorsements: exact both ways, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.endorsements.amd import AmdProduct, CrlRef, TcbVersion, VcekRef, VekKind, VlekRef, parse_name
from kbs.attestation.endorsements.amd_kds import address, store_path

TCB = TcbVersion(4, 0, 24, 219)
TURIN_TCB = TcbVersion(4, 0, 24, 219, fmc=1)
MILAN = VcekRef(AmdProduct.MILAN, bytes(range(64)), TCB)
TURIN = VcekRef(AmdProduct.TURIN, bytes(range(8)), TURIN_TCB)


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (MILAN, f"amd/vcek/Milan/{bytes(range(64)).hex()}/04-00-18-db"),
        (TURIN, "amd/vcek/Turin/0001020304050607/01-04-00-18-db"),
        (VlekRef(AmdProduct.GENOA, TCB), "amd/vlek/Genoa/04-00-18-db"),
        (CrlRef(AmdProduct.MILAN, VekKind.VCEK), "amd/crl/Milan"),
        (CrlRef(AmdProduct.TURIN, VekKind.VLEK), "amd/vlek-crl/Turin"),
    ],
)
def test_names(ref: VcekRef | VlekRef | CrlRef, name: str) -> None:
    assert ref.name == name
    assert parse_name(name) == ref


@pytest.mark.parametrize(
    "name",
    [
        "", "amd/", "amd/crl/Venice", "amd/crl/milan", "amd/crl/Milan/", "amd/crl/Milan\n", "intel/crl/Milan",
        "amd/vcek/Milan/00/04-00-18-db", "amd/vcek/Milan/" + "0" * 16 + "/04-00-18-db",
        "amd/vcek/Turin/" + "0" * 128 + "/01-04-00-18-db", "amd/vcek/Milan/" + "0" * 128 + "/01-04-00-18-db",
        "amd/vcek/Turin/" + "0" * 16 + "/04-00-18-db", "amd/vcek/Milan/" + "../" * 42 + "00/04-00-18-db",
        "amd/vcek/Milan/" + "A" * 128 + "/04-00-18-db", "amd/vcek/Milan/" + "0" * 128 + "/4-0-24-219",
    ],
)  # fmt: skip
def test_other_names_do_not_parse(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_name(name)


@given(st.text(max_size=40) | st.from_regex(r"amd/(vcek|vlek|crl)/(Milan|Turin)/[0-9a-f]{0,20}(/[0-9a-f-]{0,20})?"))
def test_whatever_parses_is_its_own_name(name: str) -> None:
    try:
        ref = parse_name(name)
    except ValueError:
        return
    assert ref.name == name


def test_addresses() -> None:
    assert address(MILAN) == f"/vcek/v1/Milan/{bytes(range(64)).hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    assert address(TURIN) == "/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    assert address(CrlRef(AmdProduct.GENOA, VekKind.VCEK)) == "/vcek/v1/Genoa/crl"
    assert address(CrlRef(AmdProduct.GENOA, VekKind.VLEK)) == "/vlek/v1/Genoa/crl"


def test_places_in_the_offline_store() -> None:
    assert store_path(TURIN, for_any_tcb=False) == "vcek/0001020304050607/bl04_tee00_snp24_ucode219_fmc01_vcek.der"
    assert store_path(MILAN, for_any_tcb=True) == f"vcek/{bytes(range(64)).hex()}/vcek.der"
    assert store_path(VlekRef(AmdProduct.MILAN, TCB), for_any_tcb=False) == (
        "vlek/Milan/bl04_tee00_snp24_ucode219_vlek.der"
    )
    assert store_path(CrlRef(AmdProduct.MILAN, VekKind.VLEK), for_any_tcb=False) == "vlek-crl/Milan.crl"
    assert store_path(CrlRef(AmdProduct.MILAN, VekKind.VLEK), for_any_tcb=True) is None


def test_versions_of_different_layouts_do_not_compare() -> None:
    assert TCB.is_at_most(TCB)
    assert not TURIN_TCB.is_at_most(TCB)
    assert not TCB.is_at_most(TURIN_TCB)
    assert not TcbVersion(4, 0, 25, 1).is_at_most(TCB)
