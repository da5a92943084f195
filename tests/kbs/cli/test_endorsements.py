"""`kbs endorsements`: from a site with a network to one without, with what goes wrong on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kbs import config
from kbs.attestation.endorsements import endorsement_service
from kbs.attestation.endorsements.bundle import read_bundle
from kbs.attestation.endorsements.contents import NO_END
from kbs.attestation.model import Binding, EndorsementNeed, Evidence, VerifierOptions
from kbs.attestation.verifiers import snp, tdx
from kbs.cli import kbs
from kbs.cli.endorsements import countdown
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.protocol.tee import Tee
from kbs.tokens.keys import generate_token_key
from tests.fakes.vendors import FakeVendors
from tests.kbs.cli.conftest import bad_json, good_json

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = b"\1" * 48


@cache
def amd() -> SoftwareSnp:
    return SoftwareSnp()


@cache
def intel() -> SoftwareTdx:
    return SoftwareTdx()


class Site:
    """A data directory, its vendors if it has a network, and the time that its commands see."""

    def __init__(self, folder: Path, fake: FakeVendors | None) -> None:
        self.data = folder
        self.fake = fake
        folder.mkdir(exist_ok=True)
        network = "true" if fake else "false"
        (folder / "tdx.json").write_text(json.dumps(intel().anchors))
        (folder / "kbs.toml").write_text(
            'attestation.tees = ["snp", "tdx"]\nattestation.anchors.tdx = "tdx.json"\n'
            f"endorsements.network = {network}\n"
        )
        (folder / "keys").mkdir(exist_ok=True)
        self.key = Ed25519PrivateKey.generate()
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "keys" / "audit.pem").write_bytes(private)
        self.public = folder / "audit.pub"
        self.public.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def run(self, *arguments: Any) -> Result:
        words = ["endorsements", *map(str, arguments), "--data", str(self.data)]
        result = CliRunner().invoke(kbs, words, obj=self.fake)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    moment = [NOW]
    for module in ("endorsements", "endorsements_prefetch"):
        monkeypatch.setattr(f"kbs.cli.{module}.system_clock", lambda: moment[0])
    return moment


@pytest.fixture
def office(tmp_path: Path, now: list[datetime], monkeypatch: pytest.MonkeyPatch) -> Site:
    """With a network, and make-believe vendors under roots of their own."""
    fake = FakeVendors(intel=intel().intel, snp=amd())
    monkeypatch.setattr("kbs.attestation.endorsements.wiring.pinned_roots", lambda: fake.roots.amd)
    root = intel().intel.root_certificate.public_bytes(Encoding.DER)
    monkeypatch.setattr("kbs.attestation.endorsements.wiring.pinned", lambda name: root)
    return Site(tmp_path / "office", fake)


@pytest.fixture
def plant(tmp_path: Path, now: list[datetime]) -> Site:
    """Without a network."""
    return Site(tmp_path / "plant", None)


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    path = tmp_path / "quote.json"
    path.write_text(json.dumps(intel().evidence(NONCE)))
    return path


@pytest.fixture
def bundle(office: Site, evidence: Path, tmp_path: Path) -> Path:
    report = tmp_path / "report.bin"
    report.write_bytes(amd().report(NONCE))
    assert office.run("prefetch", "--tee", "tdx", "--evidence", evidence).exit_code == 0
    assert office.run("prefetch", "--tee", "snp", "--evidence", report).exit_code == 0
    path = tmp_path / "site.bundle"
    assert office.run("export", "--out", path).exit_code == 0
    return path


def test_from_the_office_to_a_plant_without_a_network(office: Site, plant: Site, bundle: Path, evidence: Path) -> None:
    assert good_json(plant.run("list", "--json")) == []
    taken = good_json(plant.run("import", bundle, "--key", office.public, "--json"))
    assert taken["imported"] is True
    assert {each["outcome"] for each in taken["items"]} == {"imported"}
    assert len(taken["items"]) == 6
    under = endorsement_service(config.load(plant.data).endorsements, plant.data, lambda: NOW)
    for module, tee, anchors, body in (
        (tdx, Tee.TDX, intel().anchors, json.loads(evidence.read_text())),
        (snp, Tee.SNP, amd().anchors, amd().report(NONCE)),
    ):
        verifier = module.build(VerifierOptions(anchors=anchors))
        given = Evidence(tee, body)
        (claims,) = verifier.verify(given, under.fetch(verifier.needs(given)), Binding(NONCE), NOW)
        assert claims.claims["revocation"] == "checked"


def test_a_bundle_for_appraise(bundle: Path, evidence: Path, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.json"
    anchors.write_text(json.dumps(intel().anchors))
    words = [
        "appraise",
        "--tee",
        "tdx",
        "--evidence",
        evidence,
        "--at",
        NOW.isoformat(),
        "--anchors",
        anchors,
        "--json",
    ]
    found = CliRunner().invoke(kbs, [*map(str, words), "--endorsements", str(bundle)])
    assert json.loads(found.stdout)["submods"]["cpu0"]["revocation"] == "checked"
    bundle.write_bytes(bundle.read_bytes()[:-9])
    assert CliRunner().invoke(kbs, [*map(str, words), "--endorsements", str(bundle)]).exit_code == 2


def test_platforms_by_name(office: Site) -> None:
    fmspc = intel().intel.platform.fmspc.hex().upper()
    result = office.run("prefetch", "--intel", f"tdx/{fmspc}", "--json")
    states = {each["name"]: each["state"] for each in json.loads(result.stdout)}
    assert result.exit_code == 1  # this make-believe Intel has no list of the Processor CA
    assert states.pop("intel/pck-crl/processor") == "absent"
    assert set(states.values()) == {"ready"}
    assert len(states) == 4
    tcb = next(need.name for need in snp_needs() if "/vcek/" in need.name).removeprefix("amd/vcek/")
    found = good_json(office.run("prefetch", "--amd", tcb, "--json"))
    assert [each["state"] for each in found] == ["ready", "ready"]
    assert office.run("prefetch", "--hygon", "A1").exit_code == 1
    assert good_json(office.run("prefetch", "--name", "amd/crl/Milan", "--json"))[0]["valid_until"]


def snp_needs() -> list[EndorsementNeed]:
    return list(snp.build(VerifierOptions(anchors=amd().anchors)).needs(Evidence(Tee.SNP, amd().report(NONCE))))


def test_prefetch_says_what_failed(office: Site) -> None:
    assert office.fake is not None
    office.fake.changed["https://"] = lambda: httpx.Response(503)
    result = office.run("prefetch", "--name", "amd/crl/Milan")
    assert (result.exit_code, "failed" in result.stdout) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "intel/../x"),
        ("--hygon", "a/b"),
        ("--intel", "sev/00806f050000"),
        ("--intel", "tdx/0080"),
        ("--amd", "Rome/00/00"),
        ("--tee", "tdx"),
        ("--evidence", __file__),
        ("--tee", "nonsense", "--evidence", __file__),
    ],
)
def test_wrong_use_of_prefetch(office: Site, arguments: tuple[str, ...]) -> None:
    assert office.run("prefetch", *arguments).exit_code == 2
    assert office.fake is not None
    assert office.fake.asked == []


def test_evidence_that_does_not_parse(office: Site, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"x", b"{", b"{}"):
        path.write_bytes(content)
        assert office.run("prefetch", "--tee", "tdx", "--evidence", path).exit_code == 1


def test_a_list_for_people_and_for_machines(office: Site, bundle: Path, now: list[datetime]) -> None:
    del bundle
    rows = good_json(office.run("list", "--json"))
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    assert {row["state"] for row in rows} == {"fresh"}
    assert {row["from"] for row in rows} == {"cache"}
    assert {"Intel TCB info", "AMD VCEK", "Intel root CRL"} <= {row["kind"] for row in rows}
    now[0] += timedelta(hours=7)
    assert {row["state"] for row in good_json(office.run("list", "--json"))} == {"fresh", "due"}
    now[0] = datetime(2048, 12, 30, tzinfo=UTC)
    assert "soon" in {row["state"] for row in good_json(office.run("list", "--json"))}
    now[0] = datetime(2049, 12, 30, tzinfo=UTC)
    late = office.run("list")
    assert (late.exit_code, "expired" in late.stdout, "intel/root-crl" in late.stdout) == (0, True, True)
    assert "\x1b" not in late.stdout  # colours are for terminals


def test_a_damaged_file_in_the_cache_is_shown_and_not_exported(office: Site, bundle: Path, tmp_path: Path) -> None:
    first = read_bundle(bundle.read_bytes(), None)
    file = next((office.data / "cache/endorsements").glob("*.endorsement"))
    head, _, _ = file.read_bytes().partition(b"\n")
    meta = json.loads(head) | {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    file.write_bytes(json.dumps(meta).encode() + b"\nx")
    assert [row["state"] for row in good_json(office.run("list", "--json"))].count("damaged") == 1
    again = tmp_path / "again"
    assert good_json(office.run("export", "--out", again, "--json"))["items"] == len(first.items) - 1


def test_the_same_items_make_the_same_bundle(office: Site, bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    told = good_json(office.run("export", "--out", again, "--json"))
    assert again.read_bytes() == bundle.read_bytes()
    assert told["octets"] == len(again.read_bytes())
    assert told["public_key"] == office.public.read_text()
    some = tmp_path / "some"
    assert office.run("export", "--out", some, "--prefix", "amd/").exit_code == 0
    assert {name.split("/")[0] for name in read_bundle(some.read_bytes(), None).items} == {"amd"}
    assert office.run("export", "--out", some, "--prefix", "ibm/").exit_code == 1


def test_who_signed_it_counts(office: Site, plant: Site, bundle: Path, tmp_path: Path) -> None:
    told = good_json(office.run("export", "--out", bundle, "--json"))
    for arguments in ((), ("--key", office.public, "--fingerprint", told["fingerprint"])):
        assert plant.run("import", bundle, *arguments).exit_code == 2
    assert plant.run("import", bundle, "--fingerprint", "abc").exit_code == 2
    assert "another key" in bad_json(plant.run("import", bundle, "--key", plant.public, "--json"))["error"]
    assert bad_json(plant.run("import", bundle, "--key", office.data / "kbs.toml", "--json"))["error"]
    unsigned = tmp_path / "unsigned"
    assert "not signed" in office.run("export", "--out", unsigned, "--insecure-unsigned").stderr
    refused = bad_json(plant.run("import", unsigned, "--fingerprint", told["fingerprint"], "--json"))
    assert "not signed" in refused["error"]
    assert good_json(plant.run("list", "--json")) == []
    colons = ":".join(told["fingerprint"][place : place + 2] for place in range(0, 64, 2)).upper()
    assert plant.run("import", bundle, "--fingerprint", f"sha256:{colons}").exit_code == 0
    other = plant.run("import", unsigned, "--insecure-unsigned")
    assert (other.exit_code, "nobody vouches" in other.stderr) == (0, True)
    assert office.run("export", "--out", unsigned, "--insecure-unsigned", "--key", office.public).exit_code == 2


def test_a_changed_bundle_is_refused_as_a_whole(office: Site, plant: Site, bundle: Path) -> None:
    raw = bundle.read_bytes()
    bundle.write_bytes(raw.replace(b"valid_until", b"valid_untiI", 1))
    assert "verify" in bad_json(plant.run("import", bundle, "--key", office.public, "--json"))["error"]
    assert good_json(plant.run("list", "--json")) == []


def test_items_are_refused_one_by_one(office: Site, plant: Site, bundle: Path, now: list[datetime]) -> None:
    now[0] = datetime(2049, 1, 2, tzinfo=UTC)
    for extra in ((), ("--all-or-nothing",)):
        result = plant.run("import", bundle, "--key", office.public, *extra)
        assert (result.exit_code, "expired" in result.stdout) == (1, True)
    assert good_json(plant.run("list", "--json")) == []
    now[0] = NOW
    assert plant.run("import", bundle, "--key", office.public).exit_code == 0
    again = json.loads(plant.run("import", bundle, "--key", office.public, "--json").stdout)
    assert {each["outcome"] for each in again["items"]} == {"unchanged"}
    assert {row["from"] for row in good_json(plant.run("list", "--json"))} == {"import"}


def test_other_keys_do_not_sign(office: Site, bundle: Path, tmp_path: Path) -> None:
    generate_token_key(tmp_path / "token.pem")
    refused = bad_json(office.run("export", "--out", bundle, "--key", tmp_path / "token.pem", "--json"))
    assert "Ed25519" in refused["error"]


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=12, hours=4, minutes=9), "12d 4h"),
        (timedelta(hours=3, minutes=5), "3h 5m"),
        (timedelta(minutes=1, seconds=1), "1m 1s"),
        (timedelta(0), "0m 0s"),
        (timedelta(days=-2), "-2d 0h"),
        (NO_END - NOW, "no end"),
    ],
)
def test_the_countdown(left: timedelta, text: str) -> None:
    assert countdown(NOW + left, NOW) == text
