"""The file of publishers: what is read, and what is refused with the place named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rvps.errors import SettingsUnacceptable
from rvps.publishers.model import NOBODY, Publishers, gather, key_id, load
from tests.fakes.sigstore import Sigstore
from tests.rvps.fake_intake import publisher

TRUSTED_ROOT = Sigstore().trusted_root()
PRIVATE = ed25519.Ed25519PrivateKey.generate()
AT = datetime(2026, 11, 21, tzinfo=UTC)
IDENTITY = "https://github.com/acme/guest/.github/workflows/release.yml@refs/tags/v1"


def pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def root(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, AT, AT + timedelta(days=1))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("publishers")
    curve = ec.generate_private_key(ec.SECP256R1())
    texts = {
        "acme.pem": pem(PRIVATE.public_key()),
        "alice.pem": pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        "bob.pem": pem(rsa.generate_private_key(65537, 3072).public_key()),
        "weak.pem": pem(rsa.generate_private_key(65537, 2048).public_key()),
        "strange.pem": pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        "private.pem": PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "broken.pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "empty.pem": "",
        "root.pem": root(curve),
        "trusted_root.json": TRUSTED_ROOT.decode(),
    }
    for name, text in texts.items():
        (made / name).write_text(text)
    return made


def read(folder: Path, text: str) -> Publishers:
    path = folder / "publishers.toml"
    path.write_text(text)
    return load(path)


WHOLE = f"""
[publishers.acme]
types = ["dsse", "signed-corim"]
namespaces = ["snp_", "acme/"]
keys = ["acme.pem"]
tees = ["snp"]
max_life_days = 90
approvals = 2
approvers = ["alice", "bob", "acme"]
self_approval = true
keeps = 2
merge = "append"

[publishers.ci]
types = ["sigstore-bundle"]
namespaces = ["kata_"]
[publishers.ci.sigstore]
trusted_root = "trusted_root.json"
issuer = "https://token.actions.githubusercontent.com"
identity = "https://github.com/acme/guest/.*"
source_repository = "https://github.com/acme/guest"
workflow_ref = "refs/tags/v.*"
builder_ids = ["{IDENTITY}"]

[publishers.corp]
types = ["signed-corim"]
namespaces = ["corp/"]
roots = ["root.pem"]

[approvers.alice]
keys = ["alice.pem"]

[approvers.bob]
keys = ["bob.pem"]
types = ["dsse", "sigstore-bundle"]
"""


def test_everything_that_may_be_said_is_read(folder: Path) -> None:
    found = read(folder, WHOLE)
    assert list(found.by_name) == ["acme", "ci", "corp", "alice", "bob"]
    acme = found.by_name["acme"]
    assert (acme.types, acme.namespaces) == (frozenset({"dsse", "signed-corim"}), ("snp_", "acme/"))
    assert (acme.tees, acme.max_life, acme.keeps, acme.merge) == (frozenset({"snp"}), timedelta(days=90), 2, "append")
    assert (acme.approvals, acme.approvers, acme.self_approval) == (2, frozenset({"alice", "bob", "acme"}), True)
    assert acme.may_state("snp_x")
    assert not acme.may_state("tdx_x")
    assert found.keys[key_id(PRIVATE.public_key())].publisher is acme
    assert not found.by_name["alice"].may_state("anything")
    assert [each.name for each in found.with_type("signed-corim")] == ["acme", "corp"]
    sigstore = found.by_name["ci"].trust.sigstore
    assert sigstore is not None
    assert (sigstore.trusted_root, sigstore.builder_ids) == (TRUSTED_ROOT, frozenset({IDENTITY}))


def test_defaults_are_the_strict_ones(folder: Path) -> None:
    (found,) = read(folder, '[publishers.a]\ntypes = ["dsse"]\nnamespaces = ["x"]\nkeys = ["acme.pem"]')
    assert (found.approvals, found.keeps, found.merge, found.self_approval, found.tees) == (
        0,
        1,
        "replace",
        False,
        None,
    )
    assert found.max_life == timedelta(days=366)


def test_a_key_may_stand_in_the_file_itself(folder: Path) -> None:
    text = pem(PRIVATE.public_key())
    found = read(folder, f'[publishers.a]\ntypes = ["dsse"]\nnamespaces = ["x"]\nkeys = ["""{text}"""]')
    assert list(found.keys) == [key_id(PRIVATE.public_key())]


def test_the_digest_differs_when_anything_does(folder: Path) -> None:
    first = read(folder, WHOLE).digest
    assert read(folder, WHOLE).digest == first
    changed = [WHOLE.replace(*pair) for pair in (("snp_", "snp"), ("days = 90", "days = 91"), ("tags/v.*", "tags/w.*"))]
    assert len({first, NOBODY.digest, *(read(folder, text).digest for text in changed)}) == 5


START = '[publishers.a]\ntypes = ["dsse"]\nnamespaces = ["x"]\n'
REFUSED = {
    "not toml": ("[publishers", "not TOML"),
    "unknown table": ("[publisher.a]", "unknown member 'publisher'"),
    "unknown member": (START + 'keys = ["acme.pem"]\nkey = 1', "unknown member 'key'"),
    "no table": ("publishers = 1", "not of type dict"),
    "duplicate name": (START + START, "not TOML"),
    "name in both tables": (
        START + 'keys = ["acme.pem"]\n[approvers.a]\nkeys = ["bob.pem"]',
        "publisher 'a' is there twice",
    ),
    "name": ('[publishers."A b"]\n' + START.partition("\n")[2], "a name is made of"),
    "no types": ('[publishers.a]\nnamespaces = ["x"]\nkeys = ["acme.pem"]', "`types` is missing or empty"),
    "no namespaces": ('[publishers.a]\ntypes = ["dsse"]\nkeys = ["acme.pem"]', "`namespaces` is missing or empty"),
    "empty namespace": (START.replace('"x"', '""'), "`namespaces` is not a list of strings that say something"),
    "namespace twice": (START.replace('"x"', '"x", "x"'), "says something twice"),
    "unprintable namespace": (START.replace('"x"', '"x\\u0000"'), "cannot be printed"),
    "nothing to verify with": (START, "nothing to verify signatures with"),
    "weak key": (START + 'keys = ["weak.pem"]', "RSA from 3072 bits on"),
    "strange curve": (START + 'keys = ["strange.pem"]', "a key that is not accepted"),
    "private key": (START + 'keys = ["private.pem"]', "holds a PRIVATE KEY, expected a PUBLIC KEY"),
    "broken key": (START + 'keys = ["broken.pem"]', "does not read"),
    "empty key file": (START + 'keys = ["empty.pem"]', "no PEM in empty.pem"),
    "missing file": (START + 'keys = ["nowhere.pem"]', "nowhere.pem: No such file"),
    "key among roots": (START + 'roots = ["acme.pem"]', "expected a CERTIFICATE"),
    "one key at two": (
        START + 'keys = ["acme.pem"]\n[approvers.b]\nkeys = ["acme.pem"]',
        "one key belongs to both 'a' and 'b'",
    ),
    "one root at two": (
        START + 'roots = ["root.pem"]\n[approvers.b]\nroots = ["root.pem"]',
        "one root certificate belongs to both",
    ),
    "unknown approver": (START + 'keys = ["acme.pem"]\napprovers = ["z"]', "there is no approver 'z'"),
    "too many approvals": (
        START + 'keys = ["acme.pem"]\napprovals = 2\napprovers = ["b"]\n[approvers.b]\nkeys = ["bob.pem"]',
        "`approvals` is not between 0 and 1",
    ),
    "own approver without saying so": (START + 'keys = ["acme.pem"]\napprovers = ["a"]', "self_approval"),
    "self approval without being listed": (START + 'keys = ["acme.pem"]\nself_approval = true', "self_approval"),
    "keeps none": (START + 'keys = ["acme.pem"]\nkeeps = 0', "`keeps` is not between 1 and 8"),
    "lives for ever": (START + 'keys = ["acme.pem"]\nmax_life_days = 36500', "`max_life_days` is not between"),
    "number for text": (START + 'keys = ["acme.pem"]\nmerge = 1', "`merge` is not of type str"),
    "truth for number": (START + 'keys = ["acme.pem"]\nkeeps = true', "`keeps` is not of type int"),
    "another merge": (START + 'keys = ["acme.pem"]\nmerge = "newest"', "neither `replace` nor `append`"),
    "approver with namespaces": (
        '[approvers.b]\nkeys = ["bob.pem"]\nnamespaces = ["x"]',
        "unknown member 'namespaces'",
    ),
    "identity of everybody": (
        START + '[publishers.a.sigstore]\ntrusted_root = "trusted_root.json"\nissuer = "i"\nidentity = ".*"',
        "matches everybody",
    ),
    "identity that is no pattern": (
        START + '[publishers.a.sigstore]\ntrusted_root = "trusted_root.json"\nissuer = "i"\nidentity = "("',
        "no pattern",
    ),
    "sigstore without issuer": (
        START + '[publishers.a.sigstore]\ntrusted_root = "trusted_root.json"\nidentity = "x"',
        "`issuer` is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_with_a_mistake_is_refused_and_the_mistake_named(folder: Path, case: str) -> None:
    text, what = REFUSED[case]
    with pytest.raises(SettingsUnacceptable) as refused:
        read(folder, text)
    assert what in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsUnacceptable, match=r"publishers\.toml: No such file"):
        load(tmp_path / "publishers.toml")


def test_approvals_that_are_never_reached_are_refused() -> None:
    alone = replace(publisher("a"), approvals=1, approvers=frozenset({"a"}))
    with pytest.raises(SettingsUnacceptable, match="0 approvers never give 1 approvals"):
        gather([alone])
