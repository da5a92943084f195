"""What the documents say is so."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest

from kbs import config, errors, extensions
from kbs.admin.authorization import BUILT_IN_ROLES, EVERY_PERMISSION
from kbs.attestation.model import VerifierOptions
from kbs.cli import kbs as kbs_command
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol.tee import Tee
from kbs.web.problems import problem_for
from rvps.cli import main as rvps_command
from tests.architecture.documents import DOCUMENTS, ROOT, anchors, blocks, commands, links, rows, spans, text_of

DOCS = ROOT / "docs"
PROGRAMS: dict[str, click.Command] = {"kbs": kbs_command, "rvps": rvps_command}


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- links, files, commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(text_of(document)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(text_of(target)), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_files_exist(document: Path) -> None:
    named = [
        span for span in spans(text_of(document)) if re.fullmatch(r"(kbs|rvps|tests|policies|docs)/[\w./-]+", span)
    ]
    for name in named:
        assert "NAME" in name or name.startswith("kbs/v0") or (ROOT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_commands_and_options_exist(document: Path) -> None:
    for words in commands(text_of(document), tuple(PROGRAMS)):
        problem = _problem(words)
        assert problem is None, f"{' '.join(words)}: {problem}"


def test_the_check_of_commands_sees_what_is_wrong() -> None:
    assert _problem(["kbs", "no-such-noun"]) is not None
    assert _problem(["kbs", "resource", "no-such-verb"]) is not None
    assert _problem(["kbs", "resource", "list", "--no-such-option"]) is not None
    assert _problem(["kbs", "resource", "list", "--prefix", "a"]) is None
    script = "until kbs status --data X > /dev/null 2>&1; do sleep 1; done\nprintf x | kbs init Y &\n"
    text = f"```sh\n{script}```\n`kbs explain ID`"
    assert commands(text, ("kbs",)) == [
        ["kbs", "status", "--data", "X"],
        ["kbs", "init", "Y"],
        ["kbs", "explain", "ID"],
    ]


def _problem(words: list[str]) -> str | None:
    command = PROGRAMS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command)
        following = command.get_command(context, rest[0])
        if following is None:
            return f"no command {rest[0]}"
        command, rest = following, rest[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help", *(["--version"] if command in PROGRAMS.values() else [])}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert {words[1] for words in commands(text_of(document), ("make",)) if len(words) > 1} <= targets


def test_the_map_names_every_package_and_nothing_else() -> None:
    (tree,) = (block.text for block in blocks(text_of(ROOT / "README.md")) if block.text.startswith("kbs/\n"))
    found: set[str] = set()
    parents: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [line.split()[0]]
        found.add("".join(parents))
    assert [name for name in found if not (ROOT / name).exists()] == []
    packages = {f"{path.relative_to(ROOT)}/" for path in (ROOT / "kbs").iterdir() if (path / "__init__.py").exists()}
    assert packages <= found


# --- settings --------------------------------------------------------------------------------------------------------


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{}"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _settings(section: Any, prefix: str) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        name = f"{prefix}{field.name}"
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, f"{name}.")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            yield name, "*required*"
        else:
            yield name, "" if default is None else f"`{_toml(default)}`"
        for inner in typing.get_args(hint):
            if dataclasses.is_dataclass(inner):
                yield from _settings(inner, f"{name}[].")


def test_every_setting_is_documented_with_its_default_and_nothing_else() -> None:
    documented = {
        cells[0].strip("`"): cells[1]
        for cells in rows(text_of(DOCS / "settings.md"))
        if re.search(r"`\w+[.\[]", cells[0])
    }
    assert documented == dict(_settings(config.Settings, ""))


def _documented_options() -> set[tuple[str, str]]:
    found = [cells for cells in rows(text_of(DOCS / "settings.md")) if len(cells) == 4]
    return {(tee, cells[0].strip("`")) for cells in found for tee in spans(cells[1])}


def _is_known(tee: Tee, option: str) -> bool:
    """Whether a verifier takes an option of this name, whatever it says to the value."""
    attester = SOFTWARE_ATTESTERS[tee](TestRoot())
    build = extensions.load("kbs.verifiers", [tee])[tee]
    try:
        build(VerifierOptions({option: object()}, attester.anchors))
    except errors.ConfigInvalid as refusal:
        return "unknown option" not in str(refusal)
    return True


@pytest.mark.parametrize("tee", SOFTWARE_ATTESTERS)
def test_every_option_of_a_tee_is_documented_and_nothing_else(tee: Tee) -> None:
    """Whatever word in the code of verifiers is an option of this TEE stands in the table."""
    text = "".join(text_of(path) for path in (ROOT / "kbs/attestation").rglob("*options.py"))
    words = set(re.findall(r'"([a-z][a-z0-9]*_[a-z0-9_]+)"', text)) - {"allow_unchecked_revocation"}
    known = {word for word in words if _is_known(tee, word)}
    assert known == {option for name, option in _documented_options() if name == tee}


def test_every_tee_stands_in_the_table_of_tees() -> None:
    first_cells = [cells[0] for cells in rows(text_of(DOCS / "verifiers.md")) if len(cells) == 7]
    listed = {span for cell in first_cells for span in spans(cell.replace("[", "").replace("]", " "))}
    assert listed == {each.name for each in entry_points(group="kbs.verifiers")}


# --- errors ----------------------------------------------------------------------------------------------------------


def test_every_error_is_documented_with_its_status_and_name() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.KbsError)]
    expected = {kind.reason: (str(problem_for(kind("x")).status), problem_for(kind("x")).name) for kind in kinds}
    documented = {
        cells[0].strip("`"): (cells[1], cells[2].strip("`"))
        for cells in rows(text_of(DOCS / "errors.md"))
        if len(cells) == 4
    }
    assert documented == expected


def test_every_5xx_has_advice() -> None:
    advised = {cells[0].strip("`") for cells in rows(text_of(DOCS / "operations.md")) if len(cells) == 2}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.KbsError)]
    assert {kind.reason for kind in kinds if problem_for(kind("x")).status >= 500} <= advised


# --- differences -----------------------------------------------------------------------------------------------------


def _differing_cases() -> list[str]:
    vectors = ROOT / "tests/vectors"
    tokens = json.loads(text_of(vectors / "tokens/differences.json"))
    strict = json.loads(text_of(vectors / "as/strict-differences.json"))
    named = [case for cases in tokens.values() for case in cases]
    named += [difference["case"] for difference in strict["differences"]]
    return named + [name for name in strict if name not in ("differences", "added_claims")]


@pytest.mark.parametrize("case", _differing_cases())
def test_every_vector_that_differs_stands_in_the_table(case: str) -> None:
    cells = [row[0].replace("\\|", "|") for row in rows(text_of(DOCS / "differences.md"))]
    assert any(f"`{case}`" in cell for cell in cells)


def test_every_difference_has_a_reason() -> None:
    for cells in rows(text_of(DOCS / "differences.md")):
        assert len(cells) == 4
        assert cells[0].startswith("**") or (cells[2] and cells[3]), cells


# --- one release, roles ----------------------------------------------------------------------------------------------


def _names() -> list[str]:
    return [
        span for span in spans(text_of(DOCS / "follow-one-release.md")) if re.fullmatch(r"(kbs|rvps)\.[\w.]+", span)
    ]


def test_the_walk_through_the_code_is_long_enough() -> None:
    assert len(set(_names())) > 40


@pytest.mark.parametrize("name", sorted(set(_names())))
def test_names_in_the_walk_exist(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return
    pytest.fail(f"{name} does not exist")


def test_roles_are_documented_with_what_they_may() -> None:
    documented = {cells[0].strip("`"): cells[1] for cells in rows(text_of(DOCS / "operations.md")) if len(cells) == 2}
    for role, held in BUILT_IN_ROLES.items():
        said = "everything" if held == EVERY_PERMISSION else set(re.findall(r"`([^`]+)`", documented[role]))
        assert documented[role] == said or said == set(held)


def test_the_changelog_has_its_heading() -> None:
    assert "### What is accepted or released" in text_of(ROOT / "CHANGELOG.md")
