"""`rvps keygen, sign, sign-approval, sign-revocation, attach, verify`, as a release engineer uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rvps import signing, value_set
from rvps.cli import main, verification
from rvps.cli import signing as commands
from rvps.value_set import Artifact, ValueSet
from tests.fakes.sigstore import ISSUER, REPOSITORY, SIGNED, Sigstore

Run = Callable[..., Result]
SET = ValueSet("guest", {"snp_a": ["ab"]}, (Artifact("OVMF.fd", {"sha256": "ab" * 32}),), "snp")
OURS = Sigstore()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a directory with a key, a value set and a file of publishers, on 2 June 2026."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "system_clock", lambda: datetime(2026, 6, 2, tzinfo=UTC))
    monkeypatch.setattr(verification, "system_clock", lambda: datetime(2026, 6, 2, tzinfo=UTC))
    Path("set.json").write_bytes(value_set.write(SET))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    assert call("keygen", "acme.pem").exit_code == 0
    Path("publishers.toml").write_text(
        '[publishers.acme]\ntypes = ["dsse"]\nnamespaces = ["snp_"]\nkeys = ["acme.pem.pub"]\n'
    )
    return call


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failed(result: Result, said: str) -> None:
    assert result.exit_code == 1
    assert said in result.stderr
    assert "\nNext: " in result.stderr
    assert result.stdout == ""


def sign(run: Run, *more: str) -> Any:
    return told(run("sign", "set.json", "--key", "acme.pem", "--serial", "4", "-o", "m.json", "--json", *more))


def verify(run: Run, message: str = "m.json") -> Result:
    return run("verify", message, "--publishers", "publishers.toml", "--json")


def test_from_a_value_set_to_a_message(run: Run) -> None:
    signed = sign(run, "--days", "30", "--known-bad", 'snp_a="00"', "--together")
    assert (signed["series"], signed["serial"], signed["expires"]) == ("guest", 4, "2026-07-02T00:00:00Z")
    found = told(verify(run))
    assert found["publisher"] == "acme"
    assert (found["statement"], found["signer"]) == (signed["statement"], signed["signer"])
    assert found["values"] == {"snp_a": ["ab"]}
    assert found["known_bad"] == {"snp_a": ["00"]}
    assert (found["together"], found["tee"], found["approvals"]) == (True, "snp", 0)
    assert found["artifacts"] == [{"name": "OVMF.fd", "digest": {"sha256": "ab" * 32}}]


def test_people_see_whole_ids_and_the_next_step(run: Run) -> None:
    result = run("sign", "set.json", "--key", "acme.pem", "--serial", "4", "-o", "m.json")
    assert "Next: rvps publish m.json" in result.stdout
    shown = run("verify", "m.json", "--publishers", "publishers.toml").stdout
    signer = told(verify(run))["signer"]
    assert signer in result.stdout
    assert signer in shown
    assert "snp_a" in shown
    assert "may send this" in shown


def test_a_message_on_standard_output(run: Run) -> None:
    assert told(run("sign", "set.json", "--key", "acme.pem", "--serial", "4"))["type"] == "dsse"


def test_approvals_and_revocations(run: Run) -> None:
    digest = sign(run)["statement"]
    for name in ("m.json", digest):
        approval = run("sign-approval", name, "--serial", "4", "--key", "acme.pem", "-o", "a.json", "--json")
        assert told(approval)["approves"] == digest
        assert told(verify(run, "a.json"))["approves"] == digest
    run("sign-revocation", "m.json", "--reason", "key leaked", "--key", "acme.pem", "-o", "r.json")
    found = told(verify(run, "r.json"))
    assert (found["does"], found["revokes"], found["reason"]) == ("revocation", digest, "key leaked")


def test_keys_are_private_and_never_overwritten(run: Run) -> None:
    assert Path("acme.pem").stat().st_mode & 0o777 == 0o600
    before = Path("acme.pem").read_bytes()
    failed(run("keygen", "acme.pem"), "exists")
    Path("acme.pem.pub").unlink()
    failed(run("keygen", "acme.pem"), "exists")
    assert Path("acme.pem").read_bytes() == before


def test_encrypted_keys(run: Run) -> None:
    Path("password").write_text("secret\n")
    assert run("keygen", "locked.pem", "--password-file", "password", "--algorithm", "ed25519").exit_code == 0
    assert b"ENCRYPTED" in Path("locked.pem").read_bytes()
    arguments = ("sign", "set.json", "--key", "locked.pem", "--serial", "1")
    failed(run(*arguments), "--password-file")
    assert told(run(*arguments, "--password-file", "password"))["type"] == "dsse"
    Path("password").write_text("\n")
    failed(run(*arguments, "--password-file", "password"), "empty")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--expires", "tomorrow"), "YYYY-MM-DD"),
        (("--expires", "2026-06-02T00:00:00Z"), "has passed"),
        (("--expires", "2026-07-01T00:00:00Z", "--days", "3"), "both"),
        (("--not-before", "2027-07-01T00:00:00Z"), "before it begins"),
        (("--known-bad", "snp_a"), "NAME=JSON"),
        (("--known-bad", "snp_a=00ab"), "JSON"),
        (("--known-bad", 'snp_a="ab"'), "both stated and known bad"),
        (("--json",), "standard output"),
        (("--key", "set.json"), "not a private key"),
        (("--key", "none.pem"), "No such file"),
        (("-o", "none/m.json"), "cannot be written"),
    ],
    ids=[f"{number}" for number in range(11)],
)
def test_wrong_options(run: Run, arguments: tuple[str, ...], said: str) -> None:
    failed(run("sign", "set.json", "--key", "acme.pem", "--serial", "4", *arguments), said)
    assert not Path("m.json").exists()


def test_wrong_value_sets(run: Run) -> None:
    for document, said in ((b"", "not JSON"), (b'{"series": "a", "valves": {}}', "unknown"), (b"[" * 2000, "nested")):
        Path("bad.json").write_bytes(document)
        failed(run("sign", "bad.json", "--key", "acme.pem", "--serial", "4"), said)


def test_what_a_provider_would_refuse(run: Run) -> None:
    run("keygen", "eve.pem")
    run("sign", "set.json", "--key", "eve.pem", "--serial", "4", "-o", "eve.json")
    failed(verify(run, "eve.json"), "refused: DSSE envelope: no signature")
    run("sign", "set.json", "--key", "acme.pem", "--serial", "4", "--days", "3000", "-o", "long.json")
    failed(verify(run, "long.json"), "may live 366 days")
    Path("other.json").write_bytes(value_set.write(ValueSet("guest", {"mr_td": ["ab"]})))
    run("sign", "other.json", "--key", "acme.pem", "--serial", "4", "-o", "foreign.json")
    failed(verify(run, "foreign.json"), "may not state 'mr_td'")
    failed(verify(run, "set.json"), "`payload` is missing")
    failed(run("verify", "eve.json", "--publishers", "set.json"), "not TOML")


def test_a_bundle_is_attached_and_verified(run: Run) -> None:
    statement = signing.values_statement(SET, serial=9, expires=datetime(2026, 7, 1, tzinfo=UTC))
    Path("bundle.json").write_text(json.dumps(OURS.bundle(statement)))
    Path("root.json").write_bytes(OURS.trusted_root())
    Path("publishers.toml").write_text(
        '[publishers.acme]\ntypes = ["sigstore-bundle"]\nnamespaces = ["snp_"]\n'
        f'[publishers.acme.sigstore]\ntrusted_root = "root.json"\nissuer = "{ISSUER}"\n'
        f'identity = "{REPOSITORY}/.*"\nbuild_trigger = "release"\nbuild_config = "{REPOSITORY}/.*"\n'
        f'[publishers.acme.provenance]\nbuilder = "{REPOSITORY}/.*"\nbuild_type = "b"\nrepository = "{REPOSITORY}"\n'
        'ref = "refs/tags/v.*"\npath = "p"\nseries = "guest"\nserial_from = "run"\nrename = {a = "b"}\n'
    )
    assert run("attach", "bundle.json", "-o", "m.json").exit_code == 0
    found = told(verify(run))
    assert (found["type"], found["serial"], found["signed_at"]) == (
        "sigstore-bundle",
        9,
        f"{SIGNED:%Y-%m-%dT%H:%M:%SZ}",
    )
    failed(run("attach", "set.json"), "neither a Sigstore bundle")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('serial_from = "date"', "serial_from"),
        ('builder = "("', "builder"),
        ('builder = ".*"', "matches everybody"),
        ('series = "a b"', "series"),
        ('tee = "SNP"', "tee"),
        ('rename = {a = ""}', "name"),
        ("rename = {a = 1}", "name"),
        ("more = 1", "unknown member"),
        ("path = 1", "path"),
    ],
    ids=[f"{number}" for number in range(9)],
)
def test_rules_of_provenance_are_read_strictly(run: Run, line: str, said: str) -> None:
    lines = {"builder": '"b"', "build_type": '"b"', "repository": '"r"', "ref": '"r"', "path": '"p"', "series": '"s"'}
    name, _, value = line.partition(" = ")
    rules = "".join(f"{member} = {text}\n" for member, text in {**lines, name: value}.items())
    before = Path("publishers.toml").read_text()
    Path("publishers.toml").write_text(f"{before}[publishers.acme.provenance]\n{rules}")
    sign(run)
    failed(verify(run), said)
