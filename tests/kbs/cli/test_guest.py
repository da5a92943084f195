"""`kbs guest` against a broker in this process: the whole handshake, and refusals that lead on."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import BrokerTransport, Run, bad_json, good_json, invoke

SECRET = b"a \0 secret\n"


@pytest.mark.usefixtures("ready")
def test_the_secret_reaches_stdout_as_it_is(run: Run) -> None:
    for path in ("default/key/1", "kbs:///default/key/1"):
        result = run("guest", "get", path)
        assert (result.exit_code, result.stdout_bytes) == (0, SECRET)
    found = good_json(run("guest", "get", "default/key/1", "--json"))
    assert base64.b64decode(found["value"]) == SECRET


@pytest.mark.usefixtures("ready")
def test_the_secret_reaches_a_file_that_nobody_else_reads(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("an earlier one")
    path.chmod(0o644)
    result = run("guest", "get", "default/key/1", "--out", path)
    assert result.exit_code == 0
    assert "\0" not in result.stdout
    assert path.read_bytes() == SECRET
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.usefixtures("ready")
def test_a_token_works_in_place_of_evidence(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert run("guest", "token", "--out", path).exit_code == 0
    assert path.read_text().count(".") == 2
    # sealed to the key of the guest that attested, so another one cannot open it
    result = run("guest", "get", "default/key/1", "--token-file", path)
    assert result.exit_code == 1
    assert "does not open with this guest's key" in result.stderr
    assert run("guest", "token").stdout.count(".") == 2
    path.write_text("a.b.c")
    refused = run("guest", "get", "default/key/1", "--token-file", path)
    assert "401 TokenVerifierError" in refused.stderr


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ('svn="7"', "sample.svn"),
        ('launch_digest="ffff"', "sample.launch_digest"),
        ('platform_version={"major":1,"minor":3}', "sample.platform_version.minor"),
        ("debug=true", "sample.debug"),
    ],
)
def test_one_claim_that_differs_is_refused_and_explained(run: Run, claim: str, name: str) -> None:
    refused = run("guest", "get", "default/key/1", "--claim", claim)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "403 PolicyDeny" in refused.stderr
    assert "[policy_denied]" in refused.stderr
    following = refused.stderr.rpartition("try: ")[2].split()
    assert following[:2] == ["kbs", "explain"]
    explained = run("explain", following[2], "--json")
    causes = [cause for cause in good_json(explained)["causes"] if cause["where"] == "cpu0"]
    assert [cause["claim"] for cause in causes] == [name]


@pytest.mark.usefixtures("ready")
def test_a_refusal_as_json(run: Run) -> None:
    found = bad_json(run("guest", "get", "default/key/1", "--claim", "debug=true", "--json"))
    assert (found["status"], found["name"], found["reason"]) == (403, "PolicyDeny", "policy_denied")
    assert found["next"].startswith(f"kbs explain {found['decision']} --data ")


@pytest.mark.usefixtures("ready")
def test_malformed_evidence_is_refused_with_a_decision(run: Run) -> None:
    found = bad_json(run("guest", "get", "default/key/1", "--claim", 'debug="yes"', "--json"))
    assert (found["status"], found["name"]) == (401, "AttestationError")
    assert found["decision"] in found["next"]


@pytest.mark.parametrize("claims", [["measurement=1"], ["svn"], ["=1"], ["svn=x"], ['svn="1"', 'svn="2"']])
def test_claims_that_the_tee_does_not_have_are_wrong_use(run: Run, claims: list[str]) -> None:
    options = [word for claim in claims for word in ("--claim", claim)]
    assert run("guest", "get", "default/key/1", *options).exit_code == 2


def test_init_data_travels(broker: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "init.toml"
    path.write_text('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a.toml" = "x = 1"\n')
    assert run("guest", "token", "--init-data", path).exit_code == 0
    assert broker.audit_records()[-1]["init_data"]
    path.write_bytes(b"\xff")
    assert "UTF-8" in run("guest", "token", "--init-data", path).stderr
    path.write_text("not [ toml")
    assert run("guest", "token", "--init-data", path).exit_code == 1


@pytest.mark.usefixtures("ready")
def test_a_guest_never_shows_the_admin_token(broker: BrokerUnderTest) -> None:
    seen: list[str] = []

    class Watching(BrokerTransport):
        def handle_request(self, request):  # type: ignore[no-untyped-def]
            seen.append(json.dumps(list(request.headers.items())))
            return super().handle_request(request)

    assert invoke(Watching(broker), "guest", "get", "default/key/1", "--data", broker.data).exit_code == 0
    assert len(seen) == 4
    assert not any(broker.admin_token in each for each in seen)


@pytest.mark.usefixtures("ready")
def test_a_uri_that_lacks_a_slash_is_answered_with_a_hint(run: Run) -> None:
    missing = run("guest", "get", "kbs://default/key/1")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "404 ResourceNotFound" in missing.stderr
    assert "perhaps the URI lacks a third slash" in missing.stderr
