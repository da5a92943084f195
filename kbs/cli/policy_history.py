"""`kbs policy history`, `diff` and `remove`: what a policy was, and how it became what it is."""

from __future__ import annotations

import difflib
from typing import Final

import click

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import click_echo, done, print_json, print_table, printable_code, show_code, to_seconds
from kbs.cli.policy_source import KIND
from kbs.client.model import VersionInfo
from kbs.client.policies import PolicyClient

_DIGEST_SHOWN: Final = 16  # hex digits
_COLUMNS: Final = ("version", "sha256", "origin", "set", "by", "why", "warnings")


def _hint(place: Place) -> str:
    return f"kbs policy list {place_words(place)}".rstrip()


@click.command("history")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@broker_options(hint=_hint)
def history_command(kind: str, policy_id: str, place: Place, as_json: bool) -> None:
    """List the kept versions of one policy, oldest first."""
    with place.admin() as admin:
        found = admin.policy(kind, policy_id)
    if as_json:
        print_json([{**each.meta, "version": each.version} for each in found.history])
        return
    print_table(_COLUMNS, (_row(each) for each in found.history))


@click.command("diff")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.argument("old", type=click.IntRange(min=0))
@click.argument("new", type=click.IntRange(min=0), required=False)
@broker_options(hint=_hint)
def diff_command(kind: str, policy_id: str, old: int, new: int | None, place: Place, as_json: bool) -> None:
    """Show what changed from version OLD to NEW, or to the active one. 0 is the shipped one."""
    with place.admin() as admin:
        policies = PolicyClient(admin)
        before, _ = policies.version(kind, policy_id, old)
        if new is None:
            after, label = admin.policy(kind, policy_id).text, "active"
        else:
            after, label = policies.version(kind, policy_id, new)[0], f"version {new}"
    lines = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), f"version {old}", label, lineterm="", n=3)
    )
    if as_json:
        print_json({"kind": kind, "id": policy_id, "old": old, "new": new, "diff": lines})
        return
    for line in lines:
        click_echo(printable_code(line))


@click.command("remove")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.option("--expected", type=click.IntRange(min=0), help="Only if this version is the active one.")
@broker_options(hint=_hint)
def remove_command(kind: str, policy_id: str, expected: int | None, place: Place, as_json: bool) -> None:
    """Leave a scope, or a class of device that none is shipped for, without a policy. Its history stays."""
    with place.admin() as admin:
        PolicyClient(admin).remove(kind, policy_id, expected=expected)
    if as_json:
        print_json({"kind": kind, "id": policy_id, "removed": True})
        return
    done("removed", f"{kind} policy {policy_id}")


def versions_text(kind: str, policy_id: str, number: int, place: Place, *, as_json: bool) -> None:
    """Print one kept version."""
    with place.admin() as admin:
        text, version = PolicyClient(admin).version(kind, policy_id, number)
    if as_json:
        print_json({**version.meta, "version": version.version, "text": text})
        return
    show_code(text)


def _row(version: VersionInfo) -> tuple[object, ...]:
    meta = version.meta
    return (
        version.version,
        meta.get("digest", "")[:_DIGEST_SHOWN],
        meta.get("origin"),
        to_seconds(meta.get("time")),
        meta.get("author"),
        meta.get("reason"),
        meta.get("warnings"),
    )
