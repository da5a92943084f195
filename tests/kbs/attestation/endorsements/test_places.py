"""Azure's cache, Hygon's server, stores by name, and files: what is asked, what is taken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements import EndorsementService, endorsement_service, hygon, ibm
from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VcekRef
from kbs.attestation.endorsements.azure import address
from kbs.attestation.endorsements.contents import NO_END, Contents, is_name, read_contents
from kbs.attestation.endorsements.hygon_kds import is_pair
from kbs.attestation.model import Binding, EndorsementNeed, Evidence, VerifierOptions
from kbs.attestation.verifiers import snp
from kbs.client.attesters.hygon import SoftwareHygon
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.test_root import TestRoot
from kbs.config import EndorsementSettings
from kbs.errors import EndorsementsUnavailable
from kbs.protocol.tee import Tee
from tests.fakes.vendors import FakeVendors, vcek_chain

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = b"\1" * 48
AZURE = "https://global.acccache.azure.net"


@cache
def attester() -> SoftwareSnp:
    return SoftwareSnp()


EVIDENCE = Evidence(Tee.SNP, attester().report(NONCE))
VERIFIER = snp.build(VerifierOptions(anchors=attester().anchors))
VCEK = next(need.name for need in VERIFIER.needs(EVIDENCE) if "/vcek/" in need.name)


@cache
def pair() -> bytes:
    return SoftwareHygon(TestRoot()).hsk_cek("A1")


def other_chain() -> bytes:
    other = SoftwareSnp(TestRoot(label="other"))
    return vcek_chain(other, other.certificate())


def service(fake: FakeVendors, folder: Path, **settings: Any) -> EndorsementService:
    made = EndorsementSettings(**{"cache": folder / "cache", **settings})
    return endorsement_service(made, folder, lambda: NOW, client=fake.client(), roots=fake.roots)


def required(name: str) -> list[EndorsementNeed]:
    return [EndorsementNeed(name, required=True)]


# --- Azure -----------------------------------------------------------------------------------------------------------


def test_azure_has_the_vceks_of_its_machines(tmp_path: Path) -> None:
    fake = FakeVendors(snp=attester())
    found = service(fake, tmp_path, azure_url=AZURE).fetch(VERIFIER.needs(EVIDENCE))
    assert VERIFIER.verify(EVIDENCE, found, Binding(NONCE), NOW)
    assert found.items[VCEK] == fake.vcek
    hosts = {url.split("/")[2]: url for url in fake.asked}
    assert "/SevSnpVM/certificates/" in hosts["global.acccache.azure.net"]
    assert hosts["kdsintf.amd.com"].endswith("/crl")


def test_the_address_at_azure() -> None:
    ref = VcekRef(AmdProduct.MILAN, bytes(64), TcbVersion(3, 0, 8, 115))
    assert address(ref) == f"/SevSnpVM/certificates/{'00' * 64}/7308000000000003?api-version=2020-10-15-preview"
    # no leading zeros
    assert "/8000000000003?" in address(VcekRef(AmdProduct.MILAN, bytes(64), TcbVersion(3, 0, 8, 0)))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(404),
        lambda: httpx.Response(500),
        lambda: httpx.Response(200, text="<html>"),
        lambda: httpx.Response(200, content=attester().ark.public_bytes(Encoding.PEM)),
        lambda: httpx.Response(200, content=other_chain()),
    ],
)
def test_amd_is_asked_where_azure_has_no_good_one(answer: Callable[[], httpx.Response], tmp_path: Path) -> None:
    fake = FakeVendors(snp=attester())
    fake.changed["azure"] = answer
    found = service(fake, tmp_path, azure_url=AZURE).fetch(required(VCEK))
    assert found.items[VCEK] == fake.vcek
    assert any("kdsintf" in url for url in fake.asked)


def other_vcek(**changes: Any) -> bytes:
    """Signed by the same AMD, but not what was asked for."""
    return attester().certificate(**changes)


WRONG_VCEK: dict[str, Callable[[], bytes]] = {
    "another chip's": lambda: other_vcek(hwid=bytes(range(64, 0, -1))),
    "of another TCB version": lambda: other_vcek(tcb=TcbVersion(1, 0, 1, 1)),
    "of no chip": lambda: other_vcek(hwid=b"short"),
    "of another product's chip": lambda: other_vcek(hwid=b"\x04\x08" + bytes(8)),
}


@pytest.mark.parametrize("answer", WRONG_VCEK.values(), ids=WRONG_VCEK)
def test_the_certificate_of_another_chip_is_not_remembered(answer: Callable[[], bytes], tmp_path: Path) -> None:
    """It would be remembered to its end, and the chip would be shut out for years."""
    fake = FakeVendors(snp=attester())
    wrong = answer()
    fake.changed["azure"] = lambda: httpx.Response(200, content=vcek_chain(attester(), wrong))
    fake.changed["/vcek/v1/Milan/"] = lambda: httpx.Response(200, content=wrong)
    under = service(fake, tmp_path, azure_url=AZURE)
    with pytest.raises(EndorsementsUnavailable):
        under.fetch(required(VCEK))
    assert not list((tmp_path / "cache").glob("*.endorsement"))
    del fake.changed["/vcek/v1/Milan/"]
    assert under.fetch(required(VCEK)).items[VCEK] == fake.vcek


def test_azure_is_not_asked_for_what_it_cannot_name(tmp_path: Path) -> None:
    turin = SoftwareSnp(product="Turin")
    fake = FakeVendors(snp=turin)
    needs = snp.build(VerifierOptions(anchors=turin.anchors)).needs(Evidence(Tee.SNP, turin.report(NONCE)))
    assert len(service(fake, tmp_path, azure_url=AZURE).fetch(needs).items) == 2
    assert not any("azure" in url for url in fake.asked)


# --- Hygon -----------------------------------------------------------------------------------------------------------


def test_hygon_is_asked_by_serial_number(tmp_path: Path) -> None:
    fake = FakeVendors(hygon={"A1": pair()})
    name = hygon.hsk_cek_name("A1")
    assert service(fake, tmp_path).fetch(required(name)).items == {name: pair()}
    assert fake.asked == ["https://cert.hygon.cn/hsk_cek?snumber=A1"]
    assert service(fake, tmp_path).fetch(required(hygon.hsk_cek_name("A2"))).items == {}


@pytest.mark.parametrize("wrong", [b"", pair()[:-1], pair() + b"x", bytes(2916), pair()[832:] + pair()[:832]])
def test_other_answers_are_no_pair(wrong: bytes, tmp_path: Path) -> None:
    assert not is_pair(wrong)
    fake = FakeVendors(hygon={"A1": wrong})
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path).fetch(required("hygon/hsk-cek/A1"))


def test_hygons_files_in_the_fields_layout(tmp_path: Path) -> None:
    place = tmp_path / "offline" / "hsk_cek" / "A1"
    place.mkdir(parents=True)
    (place / "hsk_cek.cert").write_bytes(pair())
    fake = FakeVendors()
    found = service(fake, tmp_path, offline="offline").fetch(required("hygon/hsk-cek/A1"))
    assert (found.items["hygon/hsk-cek/A1"], fake.asked) == (pair(), [])


@pytest.mark.parametrize("serial", ["", "..", "a/b", "A" * 65, "A1\n", "\u0661", "A-1", "a b"])
def test_a_serial_number_that_is_none_names_nothing(serial: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        hygon.hsk_cek_name(serial)
    fake = FakeVendors()
    assert service(fake, tmp_path, offline=".").fetch(required(f"hygon/hsk-cek/{serial}")).items == {}
    assert fake.asked == []


# --- stores by name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".crl", ".der"])
def test_a_folder_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ibm/crl/signing-gen2{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(content := attester().crl())
    found = service(FakeVendors(), tmp_path, offline=".").fetch(required("ibm/crl/signing-gen2"))
    assert found.items == {"ibm/crl/signing-gen2": content}


def test_what_does_not_parse_in_a_folder_is_left_to_the_verifier(tmp_path: Path) -> None:
    (tmp_path / "amd/crl").mkdir(parents=True)
    (tmp_path / "amd/crl/Milan").write_bytes(b"garbage")
    fake = FakeVendors(snp=attester())
    name = "amd/crl/Milan"
    assert service(fake, tmp_path, offline=".").fetch(required(name)).items == {name: fake.crl}
    assert service(fake, tmp_path, offline=".", network=False, cache="x").fetch(required(name)).items == {
        name: b"garbage"
    }


def test_a_server_by_name_comes_before_the_vendor(tmp_path: Path) -> None:
    fake = FakeVendors(snp=attester())
    fake.changed["mirror.local:8443/kbs/amd/crl/Milan"] = lambda: httpx.Response(200, content=attester().crl())
    mirror = service(fake, tmp_path, stores=("https://mirror.local:8443/kbs/",))
    assert set(mirror.fetch(VERIFIER.needs(EVIDENCE)).items) == {VCEK, "amd/crl/Milan"}
    assert [url.split("/")[2] for url in fake.asked] == ["mirror.local:8443", "mirror.local:8443", "kdsintf.amd.com"]


@pytest.mark.parametrize("content", [b"", b"garbage", attester().certificate()])
def test_a_server_that_answers_something_else(content: bytes, tmp_path: Path) -> None:
    fake = FakeVendors()
    fake.changed["mirror"] = lambda: httpx.Response(200, content=content)
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path, stores=("https://mirror.local",)).fetch(required("ibm/crl/a"))


def test_a_server_that_answers_an_older_one(tmp_path: Path) -> None:
    fake = FakeVendors()
    now = [NOW]
    lists = {day: attester().crl(validity=(NOW - timedelta(days=day), NOW + timedelta(days=30))) for day in (1, 2)}
    fake.changed["mirror"] = lambda: httpx.Response(200, content=lists[1])
    settings = EndorsementSettings(cache=tmp_path, stores=("https://mirror.local",))
    under = endorsement_service(settings, tmp_path, lambda: now[0], client=fake.client())
    assert under.fetch(required("ibm/crl/a")).items == {"ibm/crl/a": lists[1]}
    now[0] += timedelta(hours=7)
    fake.changed["mirror"] = lambda: httpx.Response(200, content=lists[2])
    assert under.fetch(required("ibm/crl/a")).items == {"ibm/crl/a": lists[1]}


# --- names and contents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["ibm/crl/", "ibm/crl/..", "ibm/crl/A", "ibm/key/a", "ibm/crl/" + "a" * 65, "ibm/crl/-a", "x/y", "", "amd/crl"],
)
def test_other_names_mean_nothing(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match=r"not a name"):
        ibm.parse_name(name)
    with pytest.raises(ValueError, match=r"not"):
        read_contents(name, attester().crl())


def test_contents_say_when(tmp_path: Path) -> None:
    crl = read_contents("ibm/crl/a", attester().crl())
    assert crl.kind == "IBM revocation list"
    vcek = read_contents(VCEK, attester().certificate())
    assert (vcek.kind, vcek.is_older_than(vcek)) == ("AMD VCEK", False)
    assert read_contents("ibm/host-key/a", attester().certificate()).kind == "IBM host-key document"
    undated = read_contents("hygon/hsk-cek/A1", pair())
    assert undated == Contents("Hygon HSK and CEK", None, NO_END)
    assert not undated.is_older_than(vcek)
    assert not vcek.is_older_than(undated)
    with pytest.raises(ValueError, match="large"):
        read_contents(VCEK, bytes(2 * 1024 * 1024 + 1))
