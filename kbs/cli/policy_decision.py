"""`kbs policy eval --decision`: a past decision of a broker, as it was recorded and as it would come out now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.markup import escape

from kbs.admin.policy_scenario import ANY_REQUEST, Scenario, sets_of
from kbs.cli.connection import Place
from kbs.cli.output import click_echo, console, print_json, print_table, printable, to_seconds
from kbs.client.admin import AdminClient
from kbs.client.policy_tools import PolicyToolClient
from kbs.policy.engine import PolicyKind
from kbs.policy.store import RESOURCE_POLICY_ID

FINDING_COLUMNS: Final = ("ok", "rule", "claim", "seen", "expected", "reference value")
_SHOWN: Final = 16  # hex digits of a digest


@dataclass(frozen=True, slots=True)
class DecisionQuestion:
    """text: in place of today's policy under `policy_id`. part: submodule of the evidence."""

    decision: str
    text: bytes | None
    policy_id: str | None
    part: str | None


def show_decision(question: DecisionQuestion, place: Place, *, save: Path | None, trace: bool, as_json: bool) -> None:
    """Ask the broker and print its answer; with `save` write the input and what goes with it for the playground."""
    with place.admin() as admin:
        answer = PolicyToolClient(admin).evaluate_decision(
            question.decision,
            text=question.text,
            policy_id=question.policy_id,
            part=question.part,
            trace=trace,
            with_input=save is not None,
        )
        if save is not None:
            save.write_bytes(_scenario(admin, question, answer).encoded())
    if as_json:
        print_json(answer)
        return
    _show(answer)


def _scenario(admin: AdminClient, question: DecisionQuestion, answer: Mapping[str, Any]) -> Scenario:
    evaluations = answer["evaluations"]
    kind = PolicyKind(answer["kind"])
    if kind is PolicyKind.EVIDENCE and len(evaluations) > 1:
        parts = ", ".join(each["part"] for each in evaluations)
        raise click.UsageError(f"--save takes one part of the evidence: say --part, one of {parts}")
    replaced = question.policy_id or (None if question.text is None else RESOURCE_POLICY_ID)
    wanted = [each for each in evaluations if each["policy_id"] == replaced]
    denying = [each for each in evaluations if each["outcome"].get("allow") is False]
    found = [*wanted, *denying, *evaluations][0]
    text = None if question.text is None else question.text.decode()
    values = {each.name: each.value for each in admin.reference_values() if each.valid}
    return Scenario(
        kind,
        admin.policy(kind.value, found["policy_id"]).text if text is None else text,
        found["input"],
        values if kind is PolicyKind.EVIDENCE else {},
        found["request"] or dict(ANY_REQUEST),
        sets_of(answer.get("reference_sets", [])),
    )


def _show(answer: Mapping[str, Any]) -> None:
    out = console()
    out.print(f"{escape(printable(str(answer['subject'])))}, {to_seconds(answer['time'])}")
    if "allow" in answer:
        was, now = _allowed(answer["allowed_then"]), _allowed(answer["allow"])
        out.print(f"  then  {was}\n  now   {now}")
    for each in answer["evaluations"]:
        _show_evaluation(each)


def _show_evaluation(each: Mapping[str, Any]) -> None:
    out = console()
    where = f"{each['part']}: " if each["part"] else ""
    name = f"{where}policy {each['policy_id']}"
    out.print(f"\n[bold]{escape(printable(name))}[/]  {each['policy'][:_SHOWN]} ({escape(printable(each['origin']))})")
    recorded, outcome = each["recorded"], each["outcome"]
    if "error" in outcome:
        click_echo(printable(f"  now   no proper answer: {outcome.get('detail', outcome['error'])}"))
    elif "allow" in outcome:
        click_echo(f"  now   {'allows' if outcome['allow'] else 'denies'}")
    else:
        click_echo(printable(f"  then  {recorded['outcome'].get('status', recorded['outcome'].get('error'))}"))
        click_echo(printable(f"  now   {outcome['status']}"))
    if recorded["policy"] not in (None, each["policy"]):
        click_echo(f"  then the policy was {recorded['policy'][:_SHOWN]}")
    if recorded["references"] not in ("", each["references"]):  # a release looks up none
        click_echo("  the reference values are others since")
    differences = each["differences"]
    if differences["outcome"]:
        rows = ((row["name"], _value(row["then"]), _value(row["now"])) for row in differences["outcome"])
        print_table(("trust claim", "then", "now"), rows)
    if differences["claims"]:
        columns = ("claim", "seen", "expected then", "expected now", "then", "now", "reference value", "rule")
        print_table(columns, (_difference(row) for row in differences["claims"]))
    elif each["findings"]:
        same = "no comparison comes out differently" if recorded["findings"] else "every comparison comes out well"
        click_echo(f"  {same}")
    for line in each.get("trace", "").splitlines():
        click_echo(printable(line))


def _difference(row: Mapping[str, Any]) -> tuple[object, ...]:
    then, now = row["then"] or {}, row["now"] or {}
    seen = now.get("seen") if row["now"] else then.get("seen")
    return (
        row["claim"],
        "absent" if seen is None else json.dumps(seen),
        "not recorded" if row["then"] is None else _value(then.get("expected")),
        "not compared" if row["now"] is None else _value(now.get("expected")),
        _mark(row["then"]),
        _mark(row["now"]),
        row["reference"],
        row["rule"],
    )


def _mark(compared: Mapping[str, Any] | None) -> str:
    return "" if compared is None else "yes" if compared["ok"] else "NO"


def _value(value: Any) -> str:
    return "no value" if value is None else value if isinstance(value, str) else json.dumps(value)


def _allowed(allow: Any) -> str:
    if allow is None:
        return "[bold red]error[/]"
    return "[green]granted[/]" if allow is True else "[bold red]denied[/]"


def finding_row(finding: Mapping[str, Any]) -> tuple[object, ...]:
    """One comparison, under `FINDING_COLUMNS`."""
    seen = "absent" if finding["seen"] is None else json.dumps(finding["seen"])
    expected = "no value" if finding["expected"] is None else json.dumps(finding["expected"])
    mark = "yes" if finding["ok"] else "NO"
    return (mark, finding["rule"], finding["claim"], seen, expected, finding["reference"])
