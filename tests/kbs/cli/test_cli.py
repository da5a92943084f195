"""The whole command line: every command loads, explains itself, and speaks JSON."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from kbs.cli import kbs
from tests.kbs.cli.conftest import invoke

# what runs until it is stopped, and one whose exit status is its answer
WITHOUT_JSON = {("serve",), ("k8s", "controller"), ("k8s", "webhook"), ("vectors",)}


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(_commands(kbs, ()))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(words: tuple[str, ...]) -> None:
    result = invoke(None, *words, "--help")
    assert result.exit_code == 0
    names = {option for each in COMMANDS[words].params for option in each.opts}
    assert ("--json" in names) == (words not in WITHOUT_JSON)
    assert not {"--token", "--secret", "--value", "--password"} & names


def test_the_list_of_commands_says_what_they_say_of_themselves() -> None:
    context = click.Context(kbs)
    listed = " ".join(invoke(None, "--help").stdout.partition("Commands:")[2].split())
    for name in kbs.list_commands(context):
        command = kbs.get_command(context, name)
        assert command is not None
        assert f"{name} {' '.join(command.get_short_help_str(200).split())}" in listed


def test_the_list_of_commands_loads_none_of_them() -> None:
    program = (
        "import sys, click; from kbs.cli import kbs; kbs.get_help(click.Context(kbs)); "
        "print(*(name for name in sys.modules if name.startswith(('kbs.cli.', 'kbs.client', 'kbs.app'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["kbs.cli.output"]


def test_unknown_commands_are_wrong_use() -> None:
    assert invoke(None, "nonsense").exit_code == 2
    assert invoke(None, "resource", "nonsense").exit_code == 2


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "kbs", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("kbs, version ")) == (0, True)
