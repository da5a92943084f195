"""`kbs policy lint`, `check`, `fmt`: what is wrong with a policy, before anybody uploads it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from kbs.cli.connection import walled
from kbs.cli.output import click_echo, done, print_json, print_table, warn
from kbs.cli.policy_files import PATH, PolicyFile, compiler, policy_files, tool_options, workbench
from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.compile import Compiler
from kbs.policy.library import sha256_hex
from kbs.policy.lint import LintFinding, Severity

_STRICT = click.option("--strict", is_flag=True, help="Warnings count as errors.")


@click.command("lint")
@PATH
@_STRICT
@tool_options
@walled
def lint_command(path: Path, strict: bool, kind: str | None, opa: Path | None, as_json: bool) -> None:
    """Look for known mistakes in a policy, or in all below a folder.

    Exits 1 for an error, which an upload would be refused for; with --strict also for a warning.
    """
    tool = compiler(opa)
    found = [(file, tool.lint(file.kind, file.text)) for file in policy_files(path, kind)]
    if as_json:
        print_json([_document(file, findings) for file, findings in found])
    else:
        _show(found)
    if any(_counts(each, strict=strict) for _, findings in found for each in findings):
        raise click.exceptions.Exit(1)


@click.command("check")
@PATH
@_STRICT
@tool_options
@walled
def check_command(path: Path, strict: bool, kind: str | None, opa: Path | None, as_json: bool) -> None:
    """Do all that an upload does, but set nothing: lint, compile, and try it out on a few inputs."""
    tool = compiler(opa)
    found = [_checked(tool, file) for file in policy_files(path, kind)]
    bad = False
    for document in found:
        bad |= not document["ok"] or (strict and bool(document["warnings"]))
    if as_json:
        print_json(found)
    else:
        for document in found:
            _show_checked(document)
    if bad:
        raise click.exceptions.Exit(1)


@click.command("fmt")
@PATH
@click.option("--check", "only_check", is_flag=True, help="Change nothing; show what would change, and exit 1.")
@tool_options
@walled
def fmt_command(path: Path, only_check: bool, kind: str | None, opa: Path | None, as_json: bool) -> None:
    """Write policies and their tests in the one usual form."""
    del kind
    tool = workbench(opa)
    files = sorted(path.rglob("*.rego")) if path.is_dir() else [path]
    if not files:
        raise click.UsageError(f"{path}: no policies")
    changed: list[str] = []
    for file in files:
        old = file.read_bytes()
        new = tool.format(old)
        if new.encode() == old:
            continue
        changed.append(str(file))
        if not only_check:
            file.write_text(new, encoding="utf-8", newline="")
        if not as_json:
            _show_formatted(file, old.decode("utf-8", "replace"), new, only_check=only_check)
    if as_json:
        print_json({"changed": changed, "written": not only_check})
    if changed and only_check:
        raise click.exceptions.Exit(1)


def _counts(each: LintFinding, *, strict: bool) -> bool:
    return strict or each.severity is Severity.ERROR


def _document(file: PolicyFile, findings: tuple[LintFinding, ...]) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "kind": file.kind.value,
        "digest": sha256_hex(file.text),
        "findings": [each.document() for each in findings],
    }


def _show(found: list[tuple[PolicyFile, tuple[LintFinding, ...]]]) -> None:
    rows = [
        (
            f"{file.path}:{each.line}:{each.column}" if each.line else file.path,
            each.severity.value,
            each.rule,
            each.text,
        )
        for file, findings in found
        for each in findings
    ]
    if rows:
        print_table(("place", "severity", "rule", "what"), rows)
        return
    done("clean", f"{len(found)} {'policy' if len(found) == 1 else 'policies'}")


def _checked(tool: Compiler, file: PolicyFile) -> dict[str, Any]:
    document: dict[str, Any] = {"file": str(file.path), "kind": file.kind.value, "digest": sha256_hex(file.text)}
    try:
        compiled = tool.compile(file.kind, file.text)
    except PolicyCompilerMissing:
        raise
    except PolicyUnacceptable as err:
        return {**document, "ok": False, "error": str(err), "warnings": []}
    return {
        **document,
        "ok": True,
        "error": None,
        "warnings": list(compiled.warnings),
        "opa": compiled.opa_version,
        "wasm_sha256": sha256_hex(compiled.policy.wasm or b""),
    }


def _show_checked(document: dict[str, Any]) -> None:
    for each in document["warnings"]:
        warn(f"{document['file']}: {each}")
    if document["ok"]:
        done("good", f"{document['kind']} policy {document['file']}, sha256 {document['digest'][:16]}")
    else:
        print_table(("refused", "why"), [(document["file"], document["error"])])


def _show_formatted(file: Path, old: str, new: str, *, only_check: bool) -> None:
    if not only_check:
        done("written", str(file))
        return
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), str(file), "formatted", lineterm="", n=1):
        click_echo(line)
