"""The operator's folder: what is read, what is refused and how it says so, what happens when files change."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.model import VerifierOptions
from kbs.attestation.verifiers.se import SeVerifier, build
from kbs.attestation.verifiers.se.arcb import MAX_HOST_KEYS
from kbs.attestation.verifiers.se.material import MAX_HEADERS, Folder
from kbs.attestation.x509 import load_certificate, load_crl
from kbs.client.attesters.se import SoftwareSe
from kbs.errors import ConfigInvalid, EndorsementsUnavailable

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture
def machine() -> SoftwareSe:
    return SoftwareSe()


@pytest.fixture
def folder(tmp_path: Path, machine: SoftwareSe) -> Path:
    machine.write_folder(tmp_path / "se")
    return tmp_path / "se"


def verifier_at(options: dict[str, Any], directory: Path | None) -> SeVerifier:
    found = build(VerifierOptions(options, directory=directory))
    assert isinstance(found, SeVerifier)
    return found


def verifier_of(folder: Path) -> SeVerifier:
    return verifier_at({}, folder.parent)


def later(path: Path, content: bytes) -> None:
    """Replace a file, as tools do: whole, and with another time."""
    draft = path.with_name(".draft")
    draft.write_bytes(content)
    os.utime(draft, ns=(1, 1))
    draft.replace(path)


def test_a_broker_reads_the_folder_se_of_its_data_directory(folder: Path, machine: SoftwareSe) -> None:
    asked = verifier_of(folder).challenge(os.urandom, AT)
    assert machine.evidence_for_challenge(asked.nonce, bytes(64))


def test_another_folder_may_be_named(tmp_path: Path, machine: SoftwareSe) -> None:
    for name, directory in (("elsewhere", tmp_path), (str(tmp_path / "elsewhere"), Path("/nowhere"))):
        machine.write_folder(tmp_path / "elsewhere")
        assert verifier_at({"se_directory": name}, directory).challenge(os.urandom, AT).kept
    assert verifier_at({"se_directory": str(tmp_path / "elsewhere")}, None).challenge(os.urandom, AT).kept


def test_der_and_pem_with_text_around_it_and_several_lists_in_a_file(folder: Path, machine: SoftwareSe) -> None:
    files = machine.files()
    document = load_certificate(files["hkds/HKD-8562-00000.crt"])
    (folder / "hkds/HKD-8562-00000.crt").write_bytes(document.public_bytes(Encoding.DER))
    chain = b"IBM\n" + files["certs/DigiCertCA.crt"] + b"\nand\n" + files["certs/ibm-z-host-key-signing-gen2.crt"]
    (folder / "certs/ibm-z-host-key-signing-gen2.crt").unlink()
    (folder / "certs/DigiCertCA.crt").write_bytes(chain)
    (folder / "crls/service.crl").unlink()
    (folder / "crls/root.crl").write_bytes(files["crls/root.crl"] + files["crls/service.crl"])
    intermediate = load_crl(files["crls/intermediate.crl"]).public_bytes(Encoding.DER)
    (folder / "crls/intermediate.crl").write_bytes(intermediate)
    assert Folder(folder, allow_unchecked_revocation=False).current(AT).host_keys.usable(AT).keys


def test_links_and_hidden_files_of_mounted_secrets(folder: Path, machine: SoftwareSe) -> None:
    inner = folder / "hkds" / "..2026_11_21"
    inner.mkdir()
    (folder / "hkds/HKD-8562-00000.crt").rename(inner / "HKD.crt")
    (folder / "hkds" / "..data").symlink_to(inner.name)
    (folder / "hkds" / "HKD.crt").symlink_to("..data/HKD.crt")
    (folder / "hkds" / ".swp").write_bytes(b"no certificate")
    found = Folder(folder, allow_unchecked_revocation=False).current(AT).host_keys.usable(AT)
    assert [key.hash for key in found.keys] == [machine.phkh]


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def with_content(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def without_folder(folder: Path) -> None:
    (folder / "crls").rename(folder / "lists")
    (folder / "hdr").rename(folder / "headers")


def too_many_documents(folder: Path) -> None:
    for number in range(MAX_HOST_KEYS):
        (folder / f"hkds/{number}.crt").write_bytes((folder / "hkds/HKD-8562-00000.crt").read_bytes())


def too_many_headers(folder: Path) -> None:
    for number in range(MAX_HEADERS):
        (folder / f"hdr/{number}.bin").write_bytes((folder / "hdr/hdr.bin").read_bytes())


def twice_in_one(folder: Path) -> None:
    document = folder / "hkds/HKD-8562-00000.crt"
    document.write_bytes(document.read_bytes() * 2)


PROBLEMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (without_folder, "lacks crls/, hdr/"),
    "no document": (without("hkds/HKD-8562-00000.crt"), "no host-key document"),
    "no header": (without("hdr/hdr.bin"), "no image header"),
    "document": (with_content("hkds/HKD-8562-00000.crt", b"x"), "HKD-8562-00000.crt is not an X.509 certificate"),
    "two documents in one": (twice_in_one, "holds 2 certificates"),
    "header": (with_content("hdr/hdr.bin", b"x"), "hdr.bin: there is no Secure Execution header"),
    "certificate": (with_content("certs/DigiCertCA.crt", b""), "DigiCertCA.crt is not an X.509 certificate"),
    "list": (with_content("crls/root.crl", b"<html>"), "root.crl is not a revocation list"),
    "root": (with_content("root_ca.crt", b"x"), "root_ca.crt is not an X.509 certificate"),
    "large": (with_content("crls/root.crl", bytes(9 << 20)), "octets"),
    "too many documents": (too_many_documents, f"{MAX_HOST_KEYS + 1} host-key documents"),
    "too many headers": (too_many_headers, f"{MAX_HEADERS + 1} image headers"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_told_at_the_start(name: str, folder: Path) -> None:
    spoil, text = PROBLEMS[name]
    spoil(folder)
    with pytest.raises(ConfigInvalid, match=text):
        verifier_of(folder)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_that_come_later_stop_the_asking_until_they_are_gone(
    name: str, folder: Path, machine: SoftwareSe
) -> None:
    verifier = verifier_of(folder)
    saved = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    PROBLEMS[name][0](folder)
    with pytest.raises(EndorsementsUnavailable) as caught:
        verifier.challenge(os.urandom, AT)
    assert str(folder) not in str(caught.value)
    assert "se" in (caught.value.operator_detail or "")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()
    for path, content in saved.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert verifier.challenge(os.urandom, AT).kept


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"folder .*se lacks hkds/, certs/, crls/, hdr/"):
        build(VerifierOptions(directory=tmp_path))


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "crls/root.crl").unlink()
    (folder / "crls/root.crl").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigInvalid, match=r"root\.crl"):
        verifier_of(folder)


def test_new_lists_are_read_without_a_restart(folder: Path, machine: SoftwareSe) -> None:
    verifier = verifier_of(folder)
    assert verifier.challenge(os.urandom, AT).kept
    later(folder / "crls/service.crl", SoftwareSe(revoked=["host"]).revocation_list("service"))
    with pytest.raises(EndorsementsUnavailable) as caught:
        verifier.challenge(os.urandom, AT)
    assert "has revoked" in (caught.value.operator_detail or "")
    later(folder / "crls/service.crl", machine.revocation_list("service"))
    assert verifier.challenge(os.urandom, AT).kept


def test_nothing_is_read_again_while_nothing_changes(folder: Path) -> None:
    found = Folder(folder, allow_unchecked_revocation=False)
    assert found.current(AT) is found.current(AT)
    assert found.latest(AT) is found.current(AT)


def test_the_last_good_state_serves_for_answers(folder: Path) -> None:
    found = Folder(folder, allow_unchecked_revocation=False)
    before = found.current(AT)
    later(folder / "hdr/hdr.bin", b"half a file")
    with pytest.raises(ConfigInvalid):
        found.current(AT)
    for seconds in (0, 0.9, 1, 60, -60):
        assert found.latest(AT + timedelta(seconds=seconds)) is before


def test_answers_see_a_change_within_a_second(folder: Path, machine: SoftwareSe) -> None:
    found = Folder(folder, allow_unchecked_revocation=False)
    assert found.latest(AT).headers == found.current(AT).headers
    other = SoftwareSe(image="other")
    later(folder / "hdr/hdr.bin", other.image_header)
    assert [header.tags for header in found.latest(AT + timedelta(seconds=0.9)).headers] == [machine.tags]
    assert [header.tags for header in found.latest(AT + timedelta(seconds=1)).headers] == [other.tags]


def test_without_root_file_the_root_is_digicerts(folder: Path) -> None:
    (folder / "root_ca.crt").unlink()
    with pytest.raises(EndorsementsUnavailable) as caught:
        verifier_of(folder).challenge(os.urandom, AT)
    assert "does not lead to a pinned root" in (caught.value.operator_detail or "")


@pytest.mark.parametrize(
    ("member", "value"),
    [("certificates", "text"), ("image_headers", ["?"]), ("revocation_lists", 7), ("host_key_documents", [1])],
)
def test_anchors_that_are_no_lists_of_base64(member: str, value: Any, machine: SoftwareSe) -> None:
    with pytest.raises(ConfigInvalid, match=member):
        build(VerifierOptions(anchors={**machine.anchors, member: value}))


@pytest.mark.parametrize("member", ["host_key_documents", "certificates", "revocation_lists", "root_ca"])
def test_damaged_files_are_refused_or_not_relied_on(member: str, machine: SoftwareSe) -> None:
    """One bit of one file: no machine is asked, or the one of the undamaged document, and nothing else happens."""
    anchors = machine.anchors
    original = base64.b64decode(anchors[member][0])
    is_list = member == "revocation_lists"
    der = (load_crl(original) if is_list else load_certificate(original)).public_bytes(Encoding.DER)
    chance = random.Random(4)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(der)
        damaged[chance.randrange(len(der))] ^= 1 << chance.randrange(8)
        spoilt = [base64.b64encode(damaged).decode(), *anchors[member][1:]]
        try:
            found = build(VerifierOptions(anchors={**anchors, member: spoilt}))
            assert isinstance(found, SeVerifier)
            machine.evidence_for_challenge(found.challenge(os.urandom, AT).nonce, bytes(64))
            outcomes.add("asked")
        except ConfigInvalid:
            outcomes.add("not a file")
        except EndorsementsUnavailable:
            outcomes.add("not used")
    assert {"not a file", "not used"} <= outcomes
    # a bit of the root's own signature, which nothing checks: it is trusted by itself
    assert "asked" not in outcomes or member == "root_ca"


def test_a_header_in_the_anchors_that_is_none(machine: SoftwareSe) -> None:
    anchors = {**machine.anchors, "image_headers": [base64.b64encode(b"x").decode()]}
    with pytest.raises(ConfigInvalid, match=r"image_headers\[0\]: there is no Secure Execution header"):
        build(VerifierOptions(anchors=anchors))


@pytest.mark.parametrize(
    ("options", "anchors", "text"),
    [
        ({"se_skip_certificates": True}, None, "unknown options"),
        ({}, {"root": ""}, "anchors: unknown"),
        ({"se_directory": 7}, None, "se_directory"),
        ({"se_directory": ""}, None, "se_directory"),
        ({"se_issued": {}}, None, "se_issued is not a list"),
        ({"se_issued": [{}]}, None, "other members"),
        ({"se_issued": [{"measurement_key": "00", "request_nonce": "00" * 16}]}, None, "measurement_key"),
        ({"se_issued": [{"measurement_key": "00" * 64, "request_nonce": 7}]}, None, "request_nonce"),
        ({"allow_unchecked_revocation": "se"}, None, "allow_unchecked_revocation"),
        ({"allow_unchecked_revocation": [["se"]]}, None, "allow_unchecked_revocation"),
        ({"allow_unchecked_revocation": ["es"]}, None, "allow_unchecked_revocation"),
        ({}, {"image_phkh": []}, "image_phkh"),
        ({}, {"image_phkh": "00"}, "image_phkh"),
        ({}, {"attestation_phkh": ["zz"]}, "attestation_phkh"),
        ({}, {"attestation_phkh": 7}, "attestation_phkh"),
    ],
)
def test_settings_are_read_strictly(options: dict[str, Any], anchors: dict[str, Any] | None, text: str) -> None:
    with pytest.raises(ConfigInvalid, match=text):
        build(VerifierOptions(options, anchors))


def test_a_broker_takes_nothing_as_issued_from_its_settings(folder: Path, machine: SoftwareSe) -> None:
    with pytest.raises(ConfigInvalid, match="by hand"):
        build(VerifierOptions(machine.options, directory=folder.parent))
