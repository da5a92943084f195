"""`kbs audit`: whole logs, tampered ones, and reading them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kbs.app import open_audit
from kbs.audit.events import AdminRead, Event, ReleaseDenied
from kbs.config import load
from kbs.errors import AuditUnavailable
from tests.fakes.broker import StoppedClock
from tests.kbs.cli.conftest import bad_json, good_json, invoke
from tests.postgres_binary import Cluster

LOG = "audit/log.jsonl"
Change = Callable[[list[bytes]], list[bytes]]


def _events(count: int) -> list[Event]:
    return [AdminRead(decision=f"{number:032x}", actor="alice", what=f"thing {number}") for number in range(count)]


def _append(data: Path, events: list[Event]) -> None:
    audit = open_audit(data, load(data, {}), clock=StoppedClock())
    audit.append(events)
    audit.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with ten records."""
    folder = tmp_path / "data"
    assert invoke(None, "init", folder).exit_code == 0
    _append(folder, _events(10))
    return folder


def test_a_whole_log(data: Path) -> None:
    result = invoke(None, "audit", "verify", "--data", data)
    assert result.exit_code == 0
    assert result.stdout.startswith("whole  ")
    assert "10 records, 10 of them signed for" in result.stdout
    assert good_json(invoke(None, "audit", "verify", "--data", data, "--json"))["ok"] is True


def _lines(data: Path) -> list[bytes]:
    return (data / LOG).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda lines: lines[:-1], "cut"),
        (lambda lines: lines[:4] + lines[5:], "deleted"),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "reordered"),
        (lambda lines: [lines[0].replace(b"alice", b"malor"), *lines[1:]], "edited"),
        (lambda _: [], "cut"),
    ],
)
def test_a_copy_that_was_tampered_with(data: Path, tmp_path: Path, change: Change, code: str) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(change(_lines(data))))
    found = bad_json(invoke(None, "audit", "verify", "--data", data, "--log", copy, "--json"))
    assert found["ok"] is False
    assert found["problems"][0]["code"] == code
    result = invoke(None, "audit", "verify", "--data", data, "--log", copy)
    assert (result.exit_code, result.stdout.startswith("NOT WHOLE  ")) == (1, True)
    assert code in result.stdout


def test_the_log_itself_with_its_tail_cut(data: Path) -> None:
    (data / LOG).write_bytes(b"".join(_lines(data)[:-1]))
    assert invoke(None, "audit", "verify", "--data", data).exit_code == 1


def test_log_and_head_taken_back_together_need_a_head_from_elsewhere(data: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(data, before)
    _append(data, _events(3))
    kept = tmp_path / "kept-head"
    shutil.copy(data / "audit-head", kept)
    shutil.copy(before / LOG, data / LOG)
    shutil.copy(before / "audit-head", data / "audit-head")
    assert invoke(None, "audit", "verify", "--data", data).exit_code == 0
    found = bad_json(invoke(None, "audit", "verify", "--data", data, "--head", kept, "--json"))
    assert {each["code"] for each in found["problems"]} == {"cut", "head_rolled_back"}


def test_a_log_that_went_on_holds_what_an_older_head_vouches_for(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept-head"
    shutil.copy(data / "audit-head", kept)
    _append(data, _events(3))
    assert invoke(None, "audit", "verify", "--data", data, "--head", kept).exit_code == 0


def test_a_log_with_its_own_head_from_elsewhere(data: Path, tmp_path: Path) -> None:
    log, head = tmp_path / "old.jsonl", tmp_path / "old-head"
    shutil.copy(data / LOG, log)
    shutil.copy(data / "audit-head", head)
    _append(data, _events(3))
    assert invoke(None, "audit", "verify", "--data", data, "--log", log, "--head", head).exit_code == 0
    assert invoke(None, "audit", "verify", "--data", data, "--log", log).exit_code == 1


def test_the_head_of_another_deployment_counts_for_nothing(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    invoke(None, "init", other)
    _append(other, _events(10))
    found = bad_json(invoke(None, "audit", "verify", "--data", data, "--head", other / "audit-head", "--json"))
    assert found["problems"][0]["code"] == "head_invalid"


def test_without_log_or_head_nothing_is_proved(data: Path) -> None:
    (data / "audit-head").unlink()
    assert invoke(None, "audit", "verify", "--data", data).exit_code == 1
    (data / LOG).unlink()
    assert invoke(None, "audit", "verify", "--data", data).exit_code == 1


def test_wrong_use(data: Path, tmp_path: Path) -> None:
    assert invoke(None, "audit", "verify").exit_code == 2
    assert invoke(None, "audit", "verify", "--data", data, "--head", tmp_path / "absent").exit_code == 2
    assert invoke(None, "audit", "verify", "--data", tmp_path).exit_code == 1  # no settings there
    (data / "keys/audit.pem").write_bytes((data / "keys/token.pem").read_bytes())
    result = invoke(None, "audit", "verify", "--data", data)
    assert (result.exit_code, "Ed25519" in result.stderr) == (1, True)


def test_tail(data: Path) -> None:
    found = good_json(invoke(None, "audit", "tail", "--data", data, "-n", 3, "--json"))
    assert [each["what"] for each in found] == ["thing 7", "thing 8", "thing 9"]
    lines = invoke(None, "audit", "tail", "--data", data, "-n", 2).stdout.splitlines()
    assert lines[1].split() == [
        *("9", "2026-06-15", "12:00:00", f"{9:032x}", "admin.read", "actor=alice", "what=thing", "9")
    ]
    assert len(lines) == 2
    assert invoke(None, "audit", "tail", "--data", data, "-n", 0).exit_code == 2


def test_texts_of_strangers_do_no_harm(data: Path) -> None:
    event = ReleaseDenied(
        decision="e" * 32, plugin="resource", path="[red]\x1b]0;x\x07/\u202e", reason="policy_denied", detail="no"
    )
    _append(data, [event])
    for result in (
        invoke(None, "audit", "tail", "--data", data),
        invoke(None, "audit", "show", "e" * 32, "--data", data),
    ):
        assert result.exit_code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout)
        assert "[red]" in result.stdout


def test_show(data: Path) -> None:
    (record,) = good_json(invoke(None, "audit", "show", f"{4:032x}", "--data", data, "--json"))
    assert (record["n"], record["what"]) == (4, "thing 4")
    text = invoke(None, "audit", "show", f"{4:032x}", "--data", data).stdout
    assert text.startswith("admin.read\n")
    assert "thing 4" in text
    missing = invoke(None, "audit", "show", "0" * 31 + "f0", "--data", data)
    assert (missing.exit_code, "no decision" in missing.stderr) == (1, True)


@pytest.fixture
def shared(tmp_path: Path, postgres: Cluster, schema: str) -> Path:
    """A data directory of brokers on PostgreSQL, with ten records."""
    folder, dsn = tmp_path / "shared", tmp_path / "dsn"
    dsn.write_bytes(postgres.dsn(schema).reveal())
    assert invoke(None, "init", folder, "--storage", "postgres", "--dsn-file", dsn).exit_code == 0
    _append(folder, _events(10))
    return folder


def test_a_shared_log_is_verified_and_read(shared: Path) -> None:
    result = invoke(None, "audit", "verify", "--data", shared)
    assert result.exit_code == 0
    assert result.stdout.startswith("whole  postgresql ")
    assert "10 records, 10 of them signed for" in result.stdout
    found = good_json(invoke(None, "audit", "tail", "--data", shared, "-n", 3, "--json"))
    assert [each["what"] for each in found] == ["thing 7", "thing 8", "thing 9"]
    assert "thing 5" in invoke(None, "audit", "show", f"{5:032x}", "--data", shared).stdout
    assert invoke(None, "audit", "show", "f" * 32, "--data", shared).exit_code == 1
    (shared / "audit-head").unlink()  # a machine on which no broker ran
    assert invoke(None, "audit", "verify", "--data", shared).exit_code == 0


@pytest.mark.parametrize("where", ["data", "shared"])
def test_what_is_exported_verifies_by_itself(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder, out = request.getfixturevalue(where), tmp_path / "out"
    found = good_json(invoke(None, "audit", "export", out, "--data", folder, "--json"))
    assert found == {"log": str(out / "log.jsonl"), "head": str(out / "audit-head"), "records": 10}
    _append(folder, _events(1))
    words = ("audit", "verify", "--data", folder, "--log", out / "log.jsonl", "--head", out / "audit-head")
    assert "10 records, 10 of them signed for" in invoke(None, *words).stdout
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    refused = invoke(None, "audit", "export", out, "--data", folder)
    assert (refused.exit_code, "is not empty" in refused.stderr) == (1, True)
    text = (out / "log.jsonl").read_bytes()
    (out / "log.jsonl").write_bytes(text.replace(b"thing 3", b"thing 4"))
    assert invoke(None, *words).exit_code == 1


def test_a_shared_log_that_went_back_is_refused_until_it_is_accepted(
    shared: Path, postgres: Cluster, schema: str
) -> None:
    assert good_json(invoke(None, "audit", "accept", "--data", shared, "--json")) == {"accepted": False}
    postgres.run(f"DELETE FROM {schema}.kbs_audit_lines", f"DELETE FROM {schema}.kbs_audit_tail")
    with pytest.raises(AuditUnavailable) as caught:
        _append(shared, _events(1))
    assert "kbs audit accept" in str(caught.value.operator_detail)
    assert invoke(None, "audit", "verify", "--data", shared).exit_code == 1
    assert "the log was gone" in invoke(None, "audit", "accept", "--data", shared).stdout
    _append(shared, _events(1))
    result = invoke(None, "audit", "verify", "--data", shared)
    assert (result.exit_code, "an operator accepted" in result.stdout) == (0, True)


def test_a_log_of_files_is_not_accepted(data: Path) -> None:
    result = invoke(None, "audit", "accept", "--data", data)
    assert (result.exit_code, "move log and head away" in result.stderr) == (1, True)
