"""`kbs explain`: why a decision went the way it went, in the operator's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.markup import escape

from kbs.admin import explain
from kbs.cli import records
from kbs.cli.connection import Place, broker_options, data_word, place_words
from kbs.cli.output import click_echo, console, print_json, print_table, printable
from kbs.protocol.version import ProtocolVersion

_GOOD: Final = ("granted", "accepted")
_COLUMNS: Final = ("where", "claim", "seen", "expected", "reference value", "rule")


def _tail_hint(place: Place) -> str:
    return f"kbs audit tail --data {data_word(place.data)}"


@click.command("explain", short_help="Why a decision went the way it went.")
@click.argument("decision", metavar="ID")
@broker_options(hint=_tail_hint)
def explain_command(decision: str, place: Place, as_json: bool) -> None:
    """Explain the decision ID, which a guest's error names and the audit log records.

    With --data and without --url it reads the audit log itself, so that no broker needs to run.
    """
    if place.data is not None and not place.given:
        found = _from_log(place.data, decision)
    else:
        with place.admin() as admin:
            found = admin.decision(decision)
    if as_json:
        print_json(found)
        return
    _show(found, place)


def _from_log(data: Path, decision: str) -> dict[str, Any]:
    with records.reading(data) as log:
        return explain.explain(decision, log.find).document()


def _show(found: Mapping[str, Any], place: Place) -> None:
    out = console()
    outcome = str(found.get("outcome"))
    colour = "green" if outcome in _GOOD else "bold red"
    out.print(f"[{colour}]{_safe(outcome)}[/]  {_safe(found.get('subject'))}")
    for name in ("time", "reason", "detail", "attestation"):
        if found.get(name) is not None:
            out.print(f"  {name:<12} {_safe(found[name])}")
    if found.get("protocol") not in (None, max(ProtocolVersion).value):
        out.print(f"  {'protocol':<12} {_safe(found['protocol'])}, an old guest")
    pod = found.get("identity", {}).get("kubernetes")
    if isinstance(pod, dict):
        out.print(f"  {'pod':<12} {_safe(_pod(pod))}")
    if found.get("denied_by") not in (None, "resource-policy"):
        out.print(f"  {'denied by':<12} resource policy {_safe(found['denied_by'])}")
    for name, said in found.get("shadow", {}).items():
        out.print(f"  {'candidate':<12} {_safe(name)}: {_safe(_would(said))}")
    for name, version in found.get("rules", {}).items():
        out.print(f"  {_safe(name)}: {_safe(version)}")
    for name in found.get("cut", []):
        out.print(f"[yellow]  {_safe(name)} were too long for the audit record: this explanation is incomplete[/]")
    causes = found.get("causes", [])
    if not causes:
        return
    out.print("\n[bold]what did not match[/]")
    print_table(_COLUMNS, (_row(cause) for cause in causes))
    commands = dict.fromkeys(cause["mend"] for cause in causes if cause.get("mend"))
    if commands:
        out.print("\n[dim]only if what was seen is to be trusted from now on:[/]")
        for command in commands:
            click_echo(printable(f"  {command} {place_words(place)}".rstrip()))


def _row(cause: Mapping[str, Any]) -> tuple[object, ...]:
    seen = "absent" if cause.get("seen") is None else json.dumps(cause["seen"])
    expected = "no value" if cause.get("expected") is None else json.dumps(cause["expected"])
    return (cause.get("where"), cause.get("claim"), seen, expected, cause.get("reference"), cause.get("rule"))


def _pod(pod: Mapping[str, Any]) -> str:
    where = "/".join(str(pod.get(name)) for name in ("cluster", "namespace", "pod"))
    how = "its API server" if pod.get("checked") == "review" else "its cluster's keys alone"
    return f"{where}, account {pod.get('serviceaccount')}, uid {pod.get('pod_uid')}, says {how}"


def _would(said: Mapping[str, Any]) -> str:
    """What a candidate would have made of it."""
    if not said.get("differs"):
        return "would have decided the same"
    if "error" in said:
        return f"would have failed: {said['error']}"
    word = said.get("status", "granted" if said.get("allow") else "denied")
    return f"would have decided otherwise: {word}"


def _safe(text: object) -> str:
    return escape(printable(str(text)))
