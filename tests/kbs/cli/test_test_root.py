"""Make-believe vendors: every TEE from an empty directory to a secret, by doing what the broker says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.cli.test_root import NAME
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.clock import system_clock
from kbs.protocol.tee import Tee
from tests.fakes.broker import BrokerUnderTest, Edge, StoppedClock
from tests.kbs.cli.conftest import BrokerTransport, bad_json, good_json, invoke

CPU = sorted(set(SOFTWARE_ATTESTERS) - {Tee.HYGON_DCU})
SET = "kbs reference set "
SETTINGS = {"KBS__STORAGE__KIND": "memory", "KBS__ENDORSEMENTS__NETWORK": "false"}


class Installation:
    """A data directory that trusts make-believe vendors of all TEEs, and the broker on it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        tees = [option for tee in SOFTWARE_ATTESTERS for option in ("--tee", tee.value)]
        self.made = good_json(invoke(None, "init", data, *tees, "--insecure-test-root", "--json"))
        # the clock of the machine: software documents of AWS carry it
        self.broker = BrokerUnderTest(data, Edge.ASGI, settings=SETTINGS, clock=StoppedClock(system_clock()))
        self.transport = BrokerTransport(self.broker)

    def run(self, *arguments: Any, stdin: bytes | None = None) -> Any:
        return invoke(self.transport, *arguments, "--data", self.data, stdin=stdin)

    def guest(self, tee: Tee, *arguments: Any) -> Any:
        return self.run("guest", *arguments, "--tee", tee, "--insecure-test-root", self.data / NAME)


def mend_of(cause: dict[str, Any]) -> str | None:
    """What `explain` says; of a list it does not guess whether all of it is wanted, as Arm CCA's rules do."""
    if cause["mend"] is None and cause["reference"] is not None and isinstance(cause["seen"], list):
        return f"{SET}{cause['reference']} {shlex.quote(json.dumps([cause['seen']]))}"
    found: str | None = cause["mend"]
    return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    found = Installation(tmp_path_factory.mktemp("made") / "data")
    assert found.run("resource", "set", "default/key/1", "--file", "-", stdin=b"a secret").exit_code == 0
    yield found
    found.broker.close()


def test_the_folder_and_its_danger_are_told(installation: Installation, tmp_path: Path) -> None:
    assert installation.made["test_root"] == str(installation.data / NAME)
    told = invoke(None, "init", tmp_path / "other", "--tee", "cca", "--insecure-test-root").stdout
    assert "whoever reads the test root can forge" in told
    ready = installation.broker.call("GET", "/readyz").json
    assert "attestation.insecure_test_root" in ready["insecure"]


@pytest.mark.parametrize("tee", CPU)
def test_from_nothing_to_a_secret_by_doing_what_explain_says(installation: Installation, tee: Tee) -> None:
    """Denied for want of reference values; each one that `explain` names is set as it says; then released."""
    result = installation.guest(tee, "get", "default/key/1")
    for _ in range(3):
        if result.exit_code == 0:
            break
        refusal = bad_json(installation.guest(tee, "get", "default/key/1", "--json"))
        assert refusal["reason"] == "policy_denied"
        causes = good_json(installation.run("explain", refusal["decision"], "--json"))["causes"]
        mends = [mend for cause in causes if (mend := mend_of(cause)) is not None]
        assert mends, causes
        for mend in mends:
            assert installation.run(*shlex.split(mend)[1:]).exit_code == 0
        result = installation.guest(tee, "get", "default/key/1")
    assert result.stdout_bytes == b"a secret"


@pytest.mark.parametrize("tee", SOFTWARE_ATTESTERS)
def test_other_make_believe_vendors_are_refused(installation: Installation, tmp_path: Path, tee: Tee) -> None:
    result = installation.run("guest", "token", "--tee", tee, "--insecure-test-root", tmp_path, "--json")
    refusal = bad_json(result)
    if tee is Tee.SE:  # no machine but the one asked can read the question
        assert "not for this machine" in refusal["error"]
    else:
        assert refusal["status"] == 401


def test_what_no_software_plays_is_said(installation: Installation, tmp_path: Path) -> None:
    result = invoke(None, "init", tmp_path / "other", "--tee", "nvidia", "--insecure-test-root")
    assert result.exit_code != 0
    assert "az-snp-vtpm" in result.stderr
    assert not (tmp_path / "other").exists()
    missing = installation.run("guest", "token", "--tee", "tdx")
    assert missing.exit_code != 0
    assert "kbs init DIRECTORY --tee tdx --insecure-test-root" in missing.stderr
    both = installation.run("guest", "token", "--insecure-test-root", tmp_path)
    assert both.exit_code == 2
    claim = installation.guest(Tee.SNP, "token", "--claim", "debug=true")
    assert claim.exit_code == 2
