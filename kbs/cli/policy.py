"""`kbs policy`: evidence and resource policies: set, list, read, roll back.

Texts come from a file, or by name from those that come with the package, which need no `opa`.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import click

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import done, print_json, print_table, show_code, to_seconds
from kbs.cli.policy_eval import eval_command
from kbs.cli.policy_history import diff_command, history_command, remove_command, versions_text
from kbs.cli.policy_lint import check_command, fmt_command, lint_command
from kbs.cli.policy_migrate import migrate_command
from kbs.cli.policy_playground import playground_command
from kbs.cli.policy_shipped import shipped_command
from kbs.cli.policy_source import KIND, chosen, text_options
from kbs.cli.policy_stage import activate_command, candidate_command, discard_command, set_command, what_if_command
from kbs.cli.policy_test import coverage_command, test_command
from kbs.client.model import VersionInfo
from kbs.policy.engine import PolicyKind

_DIGEST_SHOWN: Final = 16  # hex digits, as `kbs explain` shows


def _list_hint(place: Place) -> str:
    return f"kbs policy list {place_words(place)}".rstrip()


@click.group("policy", short_help="Policies: set, list, show, roll back.")
def policy_group() -> None:
    """Policies for evidence (what is a good guest?) and for resources (which guest gets what?)."""


for _tool in (test_command, lint_command, check_command, fmt_command, eval_command, coverage_command, shipped_command):
    policy_group.add_command(_tool)
for _tool in (set_command, remove_command, history_command, diff_command, migrate_command):
    policy_group.add_command(_tool)
for _tool in (candidate_command, activate_command, discard_command, what_if_command, playground_command):
    policy_group.add_command(_tool)


@policy_group.command("set-resource")
@text_options
@broker_options(hint=_list_hint)
def set_resource_command(
    file: BinaryIO | None,
    shipped: str | None,
    tests: BinaryIO | None,
    no_tests: bool,
    reason: str | None,
    expected: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Replace the resource policy."""
    source = chosen(PolicyKind.RESOURCE, file, shipped, tests, no_tests=no_tests)
    with place.admin() as admin:
        version = admin.set_resource_policy(source.text, tests=source.tests, reason=reason, expected=expected)
    _show_set("resource policy", source.words, version, as_json=as_json)


@policy_group.command("set-evidence")
@click.argument("policy_id", metavar="ID")
@text_options
@broker_options(hint=_list_hint)
def set_evidence_command(
    policy_id: str,
    file: BinaryIO | None,
    shipped: str | None,
    tests: BinaryIO | None,
    no_tests: bool,
    reason: str | None,
    expected: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Replace the evidence policy ID: default_cpu, default_gpu …"""
    source = chosen(PolicyKind.EVIDENCE, file, shipped, tests, no_tests=no_tests)
    with place.admin() as admin:
        version = admin.set_attestation_policy(
            policy_id, source.text, tests=source.tests, reason=reason, expected=expected
        )
    _show_set(f"evidence policy {policy_id}", source.words, version, as_json=as_json)


@policy_group.command("list")
@broker_options()
def list_command(place: Place, as_json: bool) -> None:
    """List the active policies of both kinds."""
    with place.admin() as admin:
        found = admin.policies()
    if as_json:
        print_json([{**each.members, "kind": each.kind, "id": each.policy_id} for each in found])
        return
    print_table(
        ("kind", "id", "version", "sha256", "origin", "set", "by"),
        ((each.kind, each.policy_id, *_row(each.members)) for each in found),
    )


@policy_group.command("show")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.option("--history", is_flag=True, help="List the kept versions in place of the text.")
@click.option("--version", "number", type=click.IntRange(min=0), help="A kept version; 0: the shipped one.")
@broker_options(hint=_list_hint)
def show_command(kind: str, policy_id: str, history: bool, number: int | None, place: Place, as_json: bool) -> None:
    """Print the active text of one policy, byte for byte, a kept one, or its versions."""
    if number is not None:
        versions_text(kind, policy_id, number, place, as_json=as_json)
        return
    with place.admin() as admin:
        found = admin.policy(kind, policy_id)
    if as_json:
        versions = [_document(each) for each in found.history]
        print_json(
            {
                "kind": found.kind,
                "id": found.policy_id,
                "digest": found.digest,
                "origin": found.origin,
                "text": found.text,
                "history": versions,
            }
        )
    elif history:
        print_table(("version", "sha256", "origin", "set", "by", "why"), (_version_row(each) for each in found.history))
    else:
        show_code(found.text)


@policy_group.command("rollback")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.argument("version", type=click.IntRange(min=0))
@click.option("--reason", help="Why; kept in the history.")
@click.option("--expected", type=click.IntRange(min=0), help="Only if this version is the active one.")
@broker_options(hint=_list_hint)
def rollback_command(
    kind: str, policy_id: str, version: int, reason: str | None, expected: int | None, place: Place, as_json: bool
) -> None:
    """Make VERSION of a policy active again, as a new version. 0 is the shipped one."""
    with place.admin() as admin:
        now = admin.rollback_policy(kind, policy_id, version, reason=reason, expected=expected)
    if as_json:
        print_json({"kind": kind, "id": policy_id, "version": now, "from": version})
        return
    done("rolled back", f"{kind} policy {policy_id} to version {version}, now version {now}")


def _show_set(what: str, source: str, version: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"policy": what, "source": source, "version": version})
        return
    number = "" if version is None else f", version {version}"
    done("set", f"{what} from {source}{number}")


def _row(members: Any) -> tuple[object, ...]:
    digest = str(members.get("digest", ""))[:_DIGEST_SHOWN]
    return (
        members.get("version"),
        digest,
        members.get("origin"),
        to_seconds(members.get("time")),
        members.get("author"),
    )


def _version_row(version: VersionInfo) -> tuple[object, ...]:
    return (version.version, *_row(version.meta)[1:], version.meta.get("reason"))


def _document(version: VersionInfo) -> dict[str, object]:
    return {**version.meta, "name": version.name, "version": version.version}
