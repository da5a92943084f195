"""`kbs policy migrate`: bring a policy of before OPA 1.0 to the form that is accepted now."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from kbs.cli.connection import walled
from kbs.cli.output import click_echo, done, print_json, printable_code, warn
from kbs.cli.policy_files import rewrite, workbench
from kbs.policy.migrate import migrate

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("migrate")
@click.argument("file", type=_FILE)
@click.option("--reference-values", is_flag=True, help="Rewrite `data.reference`, which is empty, too.")
@click.option("--write", is_flag=True, help="Replace the file; without it the changes are only shown.")
@click.option("--opa", type=_FILE, help="The opa program. Default: the one on the search path.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def migrate_command(file: Path, reference_values: bool, write: bool, opa: Path | None, as_json: bool) -> None:
    """Rewrite the policy or test in FILE from Rego v0 to v1, and show what changes."""
    old = file.read_bytes()
    result = migrate(workbench(opa).opa, old, references=reference_values)
    changed = result.text.encode("utf-8") != old
    if changed and write:
        rewrite(file, result.text)
    if as_json:
        print_json({"file": str(file), "changed": changed, "written": changed and write, **result.document()})
        return
    before, after = old.decode("utf-8").splitlines(), result.text.splitlines()
    for line in difflib.unified_diff(before, after, str(file), "migrated", lineterm="", n=2):
        click_echo(printable_code(line))
    for edit in result.edits:
        lines = f" (lines {', '.join(map(str, edit.lines))})" if edit.lines else ""
        done(edit.name, f"{edit.why}{lines}")
    for each in result.left:
        warn(each)
    if not changed:
        done("unchanged", f"{file}: nothing to rewrite")
    elif write:
        done("written", f"{file}; next: kbs policy check {file}")
    else:
        done("shown", f"nothing was written; to do it: kbs policy migrate {file} --write")
