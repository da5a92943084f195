"""`kbs secret`: with files alone, and against a broker in this process."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import BrokerTransport, Run, Trustee, bad_json, good_json, invoke

VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors/sealed/sealed-secret-vectors.json").read_text())
VAULT, ENVELOPE = VECTORS["vault"]["sealed"], VECTORS["envelope"]["sealed"]
KID = "kbs:///default/sealed-secret-key/team-a"
NAME = "kbs:///default/db/password"
VALUE = b"s3cr3t \0 value\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with a signing key; its name in the files is team-a."""
    assert invoke(None, "secret", "keygen", KID, "--out", tmp_path / "keys").exit_code == 0
    return tmp_path / "keys"


@pytest.fixture
def jwk(tmp_path: Path) -> Path:
    """The public key of the vectors."""
    path = tmp_path / "public.json"
    path.write_text(VECTORS["public_jwk_resource"]["body"])
    return path


@pytest.fixture
def value(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_bytes(VALUE)
    return path


def sealed_with(run: Run, keys: Path, *more: Any) -> Any:
    return run("secret", "seal", "vault", "--resource", NAME, "--key", keys / "team-a-private.json", *more)


# --- files alone ------------------------------------------------------------------------------------------------------


def test_keygen_writes_a_pair_and_never_over_another(tmp_path: Path, keys: Path) -> None:
    private, public = keys / "team-a-private.json", keys / "team-a-public.json"
    assert private.stat().st_mode & 0o777 == 0o600
    assert json.loads(public.read_bytes())["kid"] == KID
    assert "d" not in json.loads(public.read_bytes())
    before = private.read_bytes()
    refused = invoke(None, "secret", "keygen", KID, "--out", keys)
    assert refused.exit_code == 1
    assert "never overwritten" in refused.stderr
    assert private.read_bytes() == before
    for kid in ("default/a/b", "kbs://a/b/c", "kbs+pkcs11:///a/b/c", "kbs:///a/b/.."):
        assert invoke(None, "secret", "keygen", kid, "--out", tmp_path / "more").exit_code == 1
    assert not (tmp_path / "more").exists()


def test_the_bytes_come_out_as_they_are(value: Path, jwk: Path, tmp_path: Path) -> None:
    result = invoke(None, "secret", "unseal", VAULT, "--secret-file", value)
    assert (result.exit_code, result.stdout_bytes) == (0, VALUE)
    assert "signature was not checked" in result.stderr
    checked = invoke(None, "secret", "unseal", VAULT, "--secret-file", value, "--jwk", jwk)
    assert (checked.exit_code, checked.stdout_bytes, checked.stderr) == (0, VALUE, "")
    out = tmp_path / "out"
    assert invoke(None, "secret", "unseal", VAULT, "--secret-file", value, "--jwk", jwk, "--out", out).exit_code == 0
    assert out.read_bytes() == VALUE
    assert out.stat().st_mode & 0o777 == 0o600
    found = good_json(invoke(None, "secret", "unseal", VAULT, "--secret-file", value, "--jwk", jwk, "--json"))
    assert (base64.b64decode(found["value"]), found["verified"]) == (VALUE, True)


def test_an_envelope_opens_with_the_data_key(tmp_path: Path, jwk: Path) -> None:
    path = tmp_path / "data-key"
    path.write_bytes(bytes.fromhex(VECTORS["envelope"]["data_key_hex"]))
    result = invoke(None, "secret", "unseal", ENVELOPE, "--secret-file", path, "--jwk", jwk)
    assert result.stdout == VECTORS["envelope"]["plaintext_utf8"]
    path.write_bytes(path.read_bytes() + b"\n")
    refused = invoke(None, "secret", "unseal", ENVELOPE, "--secret-file", path)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "newline at its end" in refused.stderr


def test_inspect_says_what_a_guest_asks_for() -> None:
    found = good_json(invoke(None, "secret", "inspect", VAULT, "--json"))
    assert found["requests"] == VECTORS["vault"]["kbs_requests_in_order"]
    assert (found["type"], found["provider"], found["signature_checked"]) == ("vault", "kbs", False)
    shown = invoke(None, "secret", "inspect", "-", stdin=ENVELOPE.encode())
    assert shown.exit_code == 0
    assert '{"client_type":"ecs_ram_role","region_id":"cn-beijing"}' in shown.stdout


@pytest.mark.parametrize("case", VECTORS["negative"], ids=lambda case: case["name"])
def test_negative_vectors_are_refused(case: Any, jwk: Path, value: Path) -> None:
    for command in (("verify", "--jwk", jwk), ("unseal", "--secret-file", value, "--jwk", jwk)):
        result = invoke(None, "secret", command[0], case["sealed"], *command[1:])
        assert (result.exit_code, result.stdout) == (1, "")
    assert bad_json(invoke(None, "secret", "verify", case["sealed"], "--jwk", jwk, "--json"))["error"]


def test_a_newline_from_stdin_is_part_of_the_string() -> None:
    refused = invoke(None, "secret", "inspect", "-", stdin=VAULT.encode() + b"\n")
    assert refused.exit_code == 1
    assert "newline" in refused.stderr


def test_wrong_use(keys: Path, value: Path) -> None:
    seal = ("secret", "seal", "vault", "--resource", NAME, "--key", keys / "team-a-private.json")
    for arguments in (
        ("secret", "verify", VAULT),
        ("secret", "unseal", VAULT),
        (*seal, "--value-file", value),
        (*seal, "--pod"),
        (*seal, "--namespace", "x"),
        (*seal, "--value", "the secret"),
        ("secret", "seal", "vault", "--resource", NAME),
    ):
        result = invoke(None, *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments


def test_seal_refuses_what_would_not_unseal(keys: Path, tmp_path: Path) -> None:
    private = keys / "team-a-private.json"
    other = tmp_path / "no-uri.json"
    other.write_text(json.dumps(VECTORS["signing_key_private_jwk"]))
    for resource, key, more, says in (
        ("kbs://default/db/password", private, (), "three slashes"),
        ("default/db/password", private, (), "no resource URI"),
        (NAME, keys / "team-a-public.json", (), "no private key"),
        (NAME, private, ("--kid", "kbs://a/b/c"), "three slashes"),
        (NAME, private, ("--manifest", "Not A Name"), "Kubernetes names"),
        (NAME, private, ("--manifest", "db", "--manifest-key", "a/b"), "keys of a Secret"),
        (NAME, other, (), "no resource URI: say where"),
    ):
        result = invoke(None, "secret", "seal", "vault", "--resource", resource, "--key", key, *more)
        assert (result.exit_code, result.stdout) == (1, ""), says
        assert says in result.stderr


def test_manifests(keys: Path) -> None:
    more = ("--manifest", "db", "--manifest-key", "password", "--namespace", "shop", "--pod")
    arguments = ("secret", "seal", "vault", "--resource", NAME, "--key", keys / "team-a-private.json", *more)
    shown = invoke(None, *arguments).stdout
    read = yaml.safe_load(shown)
    text = read["stringData"].pop("password")
    assert read == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "shop"},
        "type": "Opaque",
        "stringData": {},
    }
    assert invoke(None, "secret", "verify", text, "--jwk", keys / "team-a-public.json").exit_code == 0
    found = good_json(invoke(None, *arguments, "--json"))
    assert yaml.safe_load(found["pod"])["spec"] == {
        "containers": [
            {
                "name": "app",
                "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
                "volumeMounts": [{"name": "sealed", "mountPath": "/etc/db", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "sealed", "secret": {"secretName": "db"}}],
    }


def test_an_envelope_is_sealed_from_files(keys: Path, tmp_path: Path, value: Path) -> None:
    (tmp_path / "data-key").write_bytes(bytes(range(32)))
    (tmp_path / "encrypted").write_bytes(b"opaque")
    (tmp_path / "settings").write_text('{"region":"x"}')
    result = invoke(
        None, "secret", "seal", "envelope", "--value-file", value, "--data-key-file", tmp_path / "data-key",
        "--encrypted-key-file", tmp_path / "encrypted", "--key-id", "k", "--provider", "aws",
        "--provider-settings", tmp_path / "settings", "--key", keys / "team-a-private.json",
    )  # fmt: skip
    assert result.exit_code == 0
    assert not result.stdout.endswith("\n")
    back = invoke(None, "secret", "unseal", result.stdout, "--secret-file", tmp_path / "data-key")
    assert back.stdout_bytes == VALUE


# --- with a broker ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
def test_one_command_stores_publishes_and_seals_and_a_guest_unseals(run: Run, keys: Path, value: Path) -> None:
    result = sealed_with(run, keys, "--value-file", value)
    assert result.exit_code == 0
    assert f"must let the guest have {KID} and {NAME}" in result.stderr
    assert "ends with a newline" in result.stderr
    assert VALUE.decode() not in result.output
    listed = good_json(run("resource", "list", "--json"))
    assert {"default/sealed-secret-key/team-a", "default/db/password"} <= {each["name"] for each in listed}
    assert run("secret", "verify", result.stdout).exit_code == 0
    unsealed = run("secret", "unseal", result.stdout)
    assert (unsealed.exit_code, unsealed.stdout_bytes, unsealed.stderr) == (0, VALUE, "")


@pytest.mark.usefixtures("ready")
def test_a_key_at_the_broker_is_left_alone(run: Run, keys: Path, tmp_path: Path) -> None:
    assert good_json(sealed_with(run, keys, "--json"))["published"] is True
    invoke(None, "secret", "keygen", KID, "--out", tmp_path / "other")
    again = sealed_with(run, tmp_path / "other")
    assert "at the broker already and was left as it is" in again.stderr
    refused = run("secret", "unseal", again.stdout)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "signature invalid" in refused.stderr
    assert run("secret", "publish", tmp_path / "other/team-a-public.json").exit_code == 1
    assert run("secret", "publish", tmp_path / "other/team-a-public.json", "--replace").exit_code == 0
    assert run("secret", "verify", again.stdout).exit_code == 0


def test_a_broker_that_cannot_list_versions_is_written_to_only_where_that_was_asked_for(
    keys: Path, tmp_path: Path, value: Path
) -> None:
    (tmp_path / "admin").write_text("token")
    place = ("--url", "http://127.0.0.1:8080", "--token-file", tmp_path / "admin")
    sealing = ("seal", "vault", "--resource", NAME, "--key", keys / "team-a-private.json", "--value-file", value)
    trustee = Trustee()
    for words in (("publish", keys / "team-a-public.json"), sealing):
        refused = invoke(trustee, "secret", *words, *place)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "does not tell whether it has that already, so nothing was written" in refused.stderr
    assert set(trustee.methods) == {"GET"}
    assert invoke(trustee, "secret", "publish", keys / "team-a-public.json", "--replace", *place).exit_code == 0
    assert invoke(trustee, "secret", *sealing, "--republish", *place).exit_code == 0


def test_a_private_key_is_never_published(run: Run, keys: Path) -> None:
    refused = run("secret", "publish", keys / "team-a-private.json")
    assert refused.exit_code == 1
    assert "private key" in refused.stderr
    assert good_json(run("resource", "list", "--json")) == []


@pytest.mark.usefixtures("ready")
def test_what_the_policy_refuses_is_not_unsealed(run: Run, keys: Path, value: Path) -> None:
    sealed = sealed_with(run, keys, "--value-file", value).stdout
    refused = run("secret", "unseal", sealed, "--claim", "debug=true")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "403 PolicyDeny" in refused.stderr
    assert "try: kbs explain" in refused.stderr


@pytest.mark.usefixtures("ready")
def test_a_value_that_is_not_there_and_one_of_a_kms(run: Run, keys: Path) -> None:
    sealed = sealed_with(run, keys).stdout
    missing = run("secret", "unseal", sealed)
    assert "404 ResourceNotFound" in missing.stderr
    run("resource", "set", "default/sealed-secret-key/vector-1", "--file", "-", stdin=json.dumps(
        VECTORS["signing_key_public_jwk"]).encode())  # fmt: skip
    kms = run("secret", "unseal", ENVELOPE)
    assert kms.exit_code == 1
    assert "KMS of aliyun" in kms.stderr


@pytest.mark.usefixtures("ready")
def test_a_private_key_at_the_broker_verifies_nothing(broker: BrokerUnderTest, run: Run, keys: Path) -> None:
    """Whoever put it there gave it to every guest: no tool of ours goes on as if nothing were wrong."""
    private = (keys / "team-a-private.json").read_bytes()
    run("resource", "set", "default/sealed-secret-key/team-a", "--file", "-", stdin=private)
    sealed = invoke(None, "secret", "seal", "vault", "--resource", NAME, "--key", keys / "team-a-private.json").stdout
    refused = invoke(BrokerTransport(broker), "secret", "verify", sealed, "--data", broker.data)
    assert refused.exit_code == 1
    assert "private key" in refused.stderr
