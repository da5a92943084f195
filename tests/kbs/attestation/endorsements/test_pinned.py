"""Every root in the package is the vendor's, fits its pin, and is listed with its source."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.endorsements import pinned as module
from kbs.attestation.endorsements.amd_roots import pinned_roots
from kbs.attestation.endorsements.pinned import names, pinned
from kbs.errors import ConfigInvalid

# Typed in here a second time, so that a change of a file and of its FINGERPRINTS line together still fails. For Intel
# and AWS these are the fingerprints that the vendors themselves publish.
FINGERPRINTS = {
    "amd_ark_genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "amd_ark_milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "amd_ark_turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    "amd_ask_genoa": "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
    "amd_ask_milan": "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
    "amd_ask_turin": "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
    "amd_asvk_genoa": "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
    "amd_asvk_milan": "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
    "amd_asvk_turin": "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
    "aws_nitro_enclaves_root_g1": "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
    "azure_virtual_tpm_root_2023": "e6c596b17f8ffefba5c300f714cfb1260c6028704ecf7becc4ab5018efb00e95",
    "digicert_trusted_root_g4": "552f7bdcf1a7af9e6ce672017f4f12abf77240c78e761ac203d1d9d20ac89988",
    "gcp_ek_ak_ca_intermediate_v3": "c84de8116dfaf5a908f21e810487791f5437e206d00ad8025050cca6bd2ff627",
    "gcp_ek_ak_ca_root": "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
    "google_tpm_ek_root_1": "9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",
    "hygon_hrk": "296efa97580464aca0ab5eefe42199ee05862182508d1629f29cf4dc175b10cd",
    "intel_sgx_root_ca": "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
    "intel_sgx_root_ca_2033_edition": "fc64f8076d79a4fee9d1d473d74c89eb8d8fd55c5abafeabeba7366d20429404",
    "microsoft_rsa_devices_root_ca_2021": "8c2bb9144d4970c94fb8105cc5d860a58e2e675eb360fdd8c14b30833aaaec1d",
    "nvidia_corim_signing_root_ca": "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
    "nvidia_device_identity_ca": "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
}
INTERMEDIATE = re.compile("amd_ask_.*|amd_asvk_.*|gcp_ek_ak_ca_intermediate_v3")


def key_of(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def test_there_are_these_and_no_others() -> None:
    assert set(names()) == set(FINGERPRINTS)
    files = {entry.name for entry in (resources.files("kbs.attestation.endorsements") / "roots").iterdir()}
    assert {file.rpartition(".")[0] for file in files - {"FINGERPRINTS", "SOURCE.md"}} == set(FINGERPRINTS)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints(name: str) -> None:
    assert hashlib.sha256(pinned(name)).hexdigest() == FINGERPRINTS[name]


@pytest.mark.parametrize("name", [name for name in FINGERPRINTS if name != "hygon_hrk"])
def test_each_is_a_ca_and_each_root_signed_by_itself(name: str) -> None:
    certificate = x509.load_der_x509_certificate(pinned(name))
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    if not INTERMEDIATE.fullmatch(name):
        certificate.verify_directly_issued_by(certificate)


def test_both_editions_of_intels_root_have_one_key() -> None:
    keys = {
        key_of(x509.load_der_x509_certificate(pinned(name)))
        for name in ("intel_sgx_root_ca", "intel_sgx_root_ca_2033_edition")
    }
    assert keys == {"a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"}


def test_googles_intermediate_is_below_googles_root() -> None:
    root = x509.load_der_x509_certificate(pinned("gcp_ek_ak_ca_root"))
    x509.load_der_x509_certificate(pinned("gcp_ek_ak_ca_intermediate_v3")).verify_directly_issued_by(root)


def test_hygons_root_names_itself() -> None:
    root = pinned("hygon_hrk")
    assert len(root) == 832
    assert root[214:227] == b"HYGON-SSD-HRK"
    assert root[36:40] == bytes(4)  # key usage HRK


def test_every_root_has_a_source() -> None:
    folder = resources.files("kbs.attestation.endorsements") / "roots"
    listed = re.findall(r"^\| `([^`]+)`", (folder / "SOURCE.md").read_text("utf-8"), re.MULTILINE)
    patterns = [re.escape(file).replace("<product>", "(milan|genoa|turin)") for file in listed]
    for entry in folder.iterdir():
        if entry.name not in ("FINGERPRINTS", "SOURCE.md"):
            assert any(re.fullmatch(pattern, entry.name) for pattern in patterns), entry.name


def test_an_unknown_name_is_no_root() -> None:
    with pytest.raises(ConfigInvalid):
        pinned("intel_sgx_root_ca.pem")
    with pytest.raises(ConfigInvalid):
        pinned("../pinned")


@pytest.mark.parametrize("name", ["amd_ask_genoa.pem", "hygon_hrk.cert"])
@pytest.mark.parametrize("column", [0, 1])
def test_a_file_that_differs_from_its_pin_is_not_used(column: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = dict(module._fingerprints())
    whole, key = pins[name]
    pins[name] = ("0" * 64, key) if column == 0 else (whole, "0" * 64)
    monkeypatch.setattr(module, "_fingerprints", lambda: pins)
    with pytest.raises(ConfigInvalid, match="differs"):
        module.pinned.__wrapped__(name.rpartition(".")[0])


def test_roots_that_do_not_fit_are_not_used_for_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_fingerprints", dict)
    module.pinned.cache_clear()
    try:
        with pytest.raises(ConfigInvalid):
            pinned_roots()
    finally:
        module.pinned.cache_clear()
