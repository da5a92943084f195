"""Stores of the reference implementation, in every form over time, and `rvps import`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click.testing
import pytest

from rvps import cli, imported, messages
from rvps.cli import imports
from rvps.errors import StatementUnacceptable
from rvps.value_set import read as read_value_set

FORMS = json.loads((Path(__file__).parents[1] / "vectors/rvps/manifests.json").read_text())["stored-records"]
END = datetime(2027, 1, 1, tzinfo=UTC)
AT = END - timedelta(seconds=1)
Run = Callable[..., click.testing.Result]


def local_json(**records: Any) -> str:
    return json.dumps(
        {name: base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for name, one in records.items()}
    )


def taken(tmp_path: Path, text: str, at: datetime = AT, **options: Any) -> dict[str, Any]:
    file = tmp_path / "store"
    file.write_text(text)
    return imported.values(imported.read(file, at, **options))


@pytest.mark.parametrize("form", ["current", "before_2025_07", "oldest"])
def test_every_form_of_a_record(tmp_path: Path, form: str) -> None:
    record = FORMS[form]
    for text in (local_json(svn=record), json.dumps([record]), json.dumps({"svn": record})):
        assert taken(tmp_path, text) == {"svn": FORMS["delivered_to_policy"]}
        assert taken(tmp_path, text, END) == {}
        assert taken(tmp_path, text, END, take_expired=True) == {"svn": FORMS["delivered_to_policy"]}


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "a\\x2Fb").write_text(json.dumps({"value": 1}))
    (tmp_path / "svn").write_text(json.dumps(FORMS["current"]))
    found = imported.read(tmp_path, AT)
    assert imported.values(found) == {"a/b": 1, "svn": ["1"]}
    assert [one.expiration for one in found] == [None, END]


def test_a_config_map_as_kubectl_prints_it(tmp_path: Path) -> None:
    inner = json.dumps({"svn": {"expiration": "2027-01-01T00:00:00Z", "value": ["1"]}})
    assert taken(tmp_path, json.dumps({"kind": "ConfigMap", "data": {"reference-values.json": inner}})) == {
        "svn": ["1"]
    }


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("a\u0000", {"value": 1}, "cannot be printed"),
        ("a/../b", {"value": 1}, "segment"),
        ("a", {"value": None}, "no value"),
        ("a", {"hash-value": []}, "no value"),
        ("a", {"value": 1, "expiration": "2026-12-31T23:59:59Z"}, "expired 2026-12-31T23:59:59Z"),
    ],
    ids=["a name not to be shown", "dots in a name", "null", "no hash", "expired"],
)
def test_what_is_left_out(tmp_path: Path, name: str, record: Any, reason: str) -> None:
    file = tmp_path / "store"
    file.write_text(json.dumps({name: record, "good": {"value": True}}))
    found = {one.name: one for one in imported.read(file, AT)}
    assert imported.values(tuple(found.values())) == {"good": True}
    assert reason in str(found[name].left_out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("5", "neither an object nor a list"),
        ("{}", "neither an object nor a list"),
        ('{"a": 1, "a": 1}', "repeated"),
        ('{"svn": ["1"]}', "type `sample`"),
        ('{"svn": "***"}', "type `sample`"),
        ('{"svn": "MQ=="}', "is no object"),
        ('{"svn": {}}', "neither `value` nor"),
        ('{"svn": {"hash-value": [{"value": 1}]}}', "neither `value` nor"),
        ('{"svn": {"value": 1, "expiration": "2027-01-01"}}', "not of the form"),
        ('{"svn": {"value": 1, "expiration": 5}}', "not text"),
        ('[{"value": 1}]', "record 0"),
        ('[{"name": "a", "value": 1}, {"name": "a", "value": 2}]', "twice"),
        (local_json(other=FORMS["current"]), "another name"),
    ],
    ids=[
        "nothing", "a number", "no record", "a member twice", "bare values", "no base64", "a record that is a number",
        "no value", "hashes that are numbers", "a date without time", "a date that is a number", "no name",
        "a name twice", "another name inside",
    ],
)  # fmt: skip
def test_refused_as_a_whole(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(StatementUnacceptable, match=words):
        taken(tmp_path, text)


def test_folders_hold_plain_files(tmp_path: Path) -> None:
    (tmp_path / "svn").symlink_to("/etc/hostname")
    with pytest.raises(StatementUnacceptable, match="not a plain file"):
        imported.read(tmp_path, AT)


def test_large_stores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "MAX_FILE", 10)
    with pytest.raises(StatementUnacceptable, match="more than 10 bytes"):
        taken(tmp_path, json.dumps([FORMS["current"]]))
    monkeypatch.undo()
    monkeypatch.setattr(imported, "MAX_RECORDS", 1)
    with pytest.raises(StatementUnacceptable, match="more than 1 records"):
        taken(tmp_path, json.dumps({"a": {"value": 1}, "b": {"value": 1}}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(imports, "system_clock", lambda: AT)
    monkeypatch.chdir(tmp_path)
    old = FORMS["oldest"] | {"name": "old", "expired": "2020-01-01T00:00:00Z"}
    Path("store").write_text(json.dumps([FORMS["current"], old]))
    return lambda *words: click.testing.CliRunner().invoke(cli.main, ["import", *words])


def test_people_see_what_was_taken(run: Run) -> None:
    done = run("store")
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines() if "202" in line] == [
        ["old", "2020-01-01T00:00:00Z", "no:", "expired", "2020-01-01T00:00:00Z"],
        ["svn", "2027-01-01T00:00:00Z", "yes"],
    ]


def test_a_value_set(run: Run) -> None:
    done = run("store", "--json", "--series", "moved")
    assert read_value_set(done.stdout.strip().encode()).values == {"svn": ["1"]}
    assert done.stderr == "Note: old is left out: expired 2020-01-01T00:00:00Z\n"
    assert set(json.loads(run("store", "--json", "--expired").stdout)["values"]) == {"old", "svn"}


def test_a_message(run: Run) -> None:
    done = run("store", "--message")
    assert messages.read(json.loads(done.stdout), AT).values == {"svn": ["1"]}
    assert "old is left out" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["absent"], 2, "does not exist"),
        (["store", "--message", "--json"], 2, "goes to standard output alone"),
        (["."], 1, "is no object"),
        (["store", "--series", "/"], 1, "`series` is"),
    ],
    ids=["no file", "two outputs", "another folder", "a bad series"],
)
def test_wrong_input(run: Run, words: list[str], status: int, text: str) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout, text in done.stderr) == (status, "", True), done.stderr
