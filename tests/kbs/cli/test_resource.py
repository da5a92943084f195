"""`kbs resource` against a broker in this process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kbs.cli.conftest import Run, bad_json, good_json

SECRET = b"correct horse battery staple"


def test_a_secret_goes_in_from_stdin_or_a_file_and_never_comes_back(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    results = [
        run("resource", "set", "default/key/1", "--file", "-", stdin=SECRET),
        run("resource", "set", "default/key/1", "--file", path),
        run("resource", "list"),
        run("resource", "show", "default/key/1"),
        run("resource", "rollback", "default/key/1", 1),
    ]
    assert [result.exit_code for result in results] == [0] * 5
    assert "version 1 (28 bytes)" in results[0].stdout
    assert "version 2 (28 bytes)" in results[1].stdout
    assert "now version 3" in results[4].stdout
    assert not any(SECRET.decode() in result.output for result in results)


def test_bytes_are_taken_as_they_are(run: Run) -> None:
    raw = bytes(range(256)) + b"\r\n\n"
    assert good_json(run("resource", "set", "a/b/c", "--file", "-", "--json", stdin=raw)) == {
        "path": "a/b/c",
        "version": 1,
        "bytes": len(raw),
    }


def test_lists_as_json(run: Run) -> None:
    for path in ("a/b/c", "a/b/d", "z/b/c"):
        run("resource", "set", path, "--file", "-", stdin=b"12345")
    found = good_json(run("resource", "list", "--prefix", "a/", "--json"))
    assert [(each["name"], each["version"], each["size"]) for each in found] == [("a/b/c", 1, "5"), ("a/b/d", 1, "5")]
    shown = good_json(run("resource", "show", "a/b/c", "--json"))
    assert (shown["path"], shown["version"], [each["version"] for each in shown["versions"]]) == ("a/b/c", 1, [1])


def test_compare_and_set(run: Run) -> None:
    assert run("resource", "set", "a/b/c", "--file", "-", "--expected", 0, stdin=b"1").exit_code == 0
    found = bad_json(run("resource", "set", "a/b/c", "--file", "-", "--expected", 0, "--json", stdin=b"2"))
    assert (found["status"], found["reason"]) == (412, "version_conflict")
    assert found["next"].startswith("kbs resource list --data ")
    assert run("resource", "delete", "a/b/c", "--expected", 7).exit_code == 1
    assert run("resource", "delete", "a/b/c", "--expected", 1).exit_code == 0


def test_what_is_not_there_says_where_to_look(run: Run) -> None:
    for arguments in (("show", "a/b/c"), ("delete", "a/b/c"), ("rollback", "a/b/c", 1)):
        result = run("resource", *arguments)
        assert result.exit_code == 1
        assert "404 ResourceNotFound" in result.stderr
        assert "try: kbs resource list --data " in result.stderr
        assert result.stdout == ""


def test_names_outside_the_grammar_are_refused(run: Run) -> None:
    for path in ("only/two", "a/b/c/d", "a/../b", "a/b/c d", "", "a/b/%63"):
        result = run("resource", "set", path, "--file", "-", stdin=b"x")
        assert result.exit_code == 1, path
        assert result.stderr.startswith("error: ")


def test_a_secret_cannot_stand_in_the_arguments(run: Run) -> None:
    assert run("resource", "set", "a/b/c").exit_code == 2
    assert run("resource", "set", "a/b/c", "the secret").exit_code == 2


def test_a_key_with_a_newline_is_stored_with_a_warning(run: Run) -> None:
    result = run("resource", "set", "default/image-kek/app", "--file", "-", "--json", stdin=bytes(32) + b"\n")
    assert (result.exit_code, json.loads(result.stdout)["bytes"]) == (0, 33)
    assert "warning: 33 bytes: a key of 32 bytes and a newline?" in result.stderr
    assert run("resource", "set", "default/image-kek/app", "--file", "-", stdin=bytes(32)).stderr == ""
