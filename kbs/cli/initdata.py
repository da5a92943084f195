"""`kbs initdata`: the document a guest is started with: render, check, compare, digest; and the broker's register.

FILE is TOML, the annotation's value, gzip, or a manifest with the annotation; `-` is standard input.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from rich.markup import escape

from kbs.cli.connection import walled
from kbs.cli.initdata_register import explain_command, list_command, register_command, remove_command, show_command
from kbs.cli.output import click_echo, console, done, print_json, print_table, printable
from kbs.clock import system_clock
from kbs.errors import MalformedMessage
from kbs.initdata import agent_policy, annotation, document
from kbs.initdata.check import check
from kbs.initdata.difference import Difference, compare
from kbs.initdata.document import POLICY, Document
from kbs.initdata.findings import Severity
from kbs.initdata.render import render

_COLOURS: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_FILE: Final = click.File("rb")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("initdata", short_help="Init data: render, check, diff, digest; the register of known documents.")
def initdata_group() -> None:
    """Init data: the measured document that a guest is started with."""


for _command in (register_command, list_command, show_command, remove_command, explain_command):
    initdata_group.add_command(_command)


@initdata_group.command("render")
@click.argument("file", type=_FILE)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the TOML there.")
@click.option("--annotation", "as_annotation", is_flag=True, help="Print the annotation's value in place of the TOML.")
@_JSON
@walled
def render_command(file: BinaryIO, output: Path | None, as_annotation: bool, as_json: bool) -> None:
    """Make a document of a small YAML: the same YAML and files give the same bytes."""
    folder = Path(".") if file.name in ("-", "<stdin>") else Path(file.name).parent
    made = render(_limited(file), lambda name: _read(folder / name))
    if output is not None:
        _write(output, made.raw)
    if as_json:
        print_json(_summary(made) | {"toml": made.text, "annotation": annotation.encode(made.raw)})
    elif as_annotation:
        click_echo(annotation.encode(made.raw))
    elif output is None:
        sys.stdout.buffer.write(made.raw)
    else:
        done("rendered", f"{output}, {made.algorithm} {made.digest.hex()}")


@initdata_group.command("digest")
@click.argument("file", type=_FILE)
@click.option(
    "--tee", type=click.Choice(sorted(document.TEES)), help="The field of this TEE's evidence, not the digest."
)
@click.option("--all", "all_of_them", is_flag=True, help="A table: the digest and the fields of all TEEs.")
@_JSON
@walled
def digest_command(file: BinaryIO, tee: str | None, all_of_them: bool, as_json: bool) -> None:
    """Print the digest of FILE in lower-case hex, by the algorithm that it names."""
    found = document.read(_limited(file))
    value = found.digest.hex() if tee is None else document.field_value(tee, found.digest)
    if as_json:
        print_json(_summary(found) | {"tee": tee, "value": value})
    elif all_of_them:
        rows = [("", f"digest ({found.algorithm})", found.digest.hex())]
        for name, field in document.field_values(found.digest).items():
            rows.append((name, document.field_of(name), field or "takes sha256 only"))
        print_table(("TEE", "field", "value"), rows)
    else:
        click_echo(value)


@initdata_group.command("check")
@click.argument("file", type=_FILE)
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@_JSON
@walled
def check_command(file: BinaryIO, strict: bool, as_json: bool) -> None:
    """Say what will go wrong with FILE. Exit 1 if there is an error."""
    read = document.read(_limited(file))
    found = check(read, system_clock())
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    failed = any(each.severity in bad for each in found)
    if as_json:
        rows = [
            {"name": each.name, "severity": each.severity, "where": each.where, "text": each.text, "hint": each.hint}
            for each in found
        ]
        print_json(_summary(read) | {"ok": not failed, "findings": rows})
    else:
        for each in found:
            colour = _COLOURS[each.severity]
            console().print(
                f"[{colour}]{each.severity}[/] {escape(printable(each.where))}: {escape(printable(each.text))} "
                f"[dim]\\[{each.name}][/]"
            )
            console().print(f"  [dim]{escape(each.hint)}[/]")
        counts = ", ".join(f"{sum(each.severity is level for each in found)} {level}s" for level in Severity)
        console().print(f"{'[bold red]bad[/]' if failed else '[green]good[/]'}  {counts}")
    if failed:
        raise click.exceptions.Exit(1)


@initdata_group.command("diff")
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@_JSON
@walled
def diff_command(before: BinaryIO, after: BinaryIO, as_json: bool) -> None:
    """Say what differs between two documents, by entry. Exit 1 if anything does."""
    one, other = document.read(_limited(before)), document.read(_limited(after))
    found = compare(one, other)
    if as_json:
        rows = [
            {"entry": d.entry, "path": d.path, "before": d.before, "after": d.after, "lines": list(d.lines)}
            for d in found
        ]
        print_json({"same": not found, "before": one.digest.hex(), "after": other.digest.hex(), "differences": rows})
    else:
        for each in found:
            print_difference(each)
        if not found:
            done("same", f"{one.algorithm} {one.digest.hex()}")
    if found:
        raise click.exceptions.Exit(1)


def print_difference(difference: Difference) -> None:
    """Removed in red, added in green."""
    out = console()
    where = f"{difference.entry}: {difference.path}" if difference.path else difference.entry
    out.print(f"[bold]{escape(printable(where))}[/]")
    if difference.before is not None and not difference.lines:
        out.print(f"  [red]- {escape(printable(difference.before))}[/]")
    if difference.after is not None and not difference.lines:
        out.print(f"  [green]+ {escape(printable(difference.after))}[/]")
    for line in difference.lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "default")
        out.print(f"  [{colour}]{escape(printable(line))}[/]")


def _summary(found: Document) -> dict[str, Any]:
    rules: Mapping[str, str] = {}
    if POLICY in found.data:
        rules = {"agent_policy_rules_sha256": agent_policy.look_at(found.data[POLICY]).rules_digest}
    return {
        "form": found.form,
        "algorithm": found.algorithm,
        "digest": found.digest.hex(),
        "fields": document.field_values(found.digest),
        **rules,
    }


def _limited(file: BinaryIO) -> bytes:
    """No more of a file than `document.read` refuses."""
    return file.read(document.MAX_FILE + 1)


def _read(path: Path) -> bytes:
    with path.open("rb") as opened:
        raw = opened.read(document.MAX_FILE + 1)
    if len(raw) > document.MAX_FILE:
        raise MalformedMessage(f"{path}: more than {document.MAX_FILE} bytes")
    return raw


def _write(path: Path, content: bytes) -> None:
    """Whole, in place of an earlier one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
