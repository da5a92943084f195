"""What `kbs appraise` prints: one JSON object for machines, tables for people.

Claims come from strangers. They reach a terminal only as ASCII JSON, in which no control character survives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbs.attestation.appraisal import tier
from kbs.attestation.model import Appraisal, Json, Tier
from kbs.attestation.recorded import claims_of
from kbs.attestation.service import Attested
from kbs.errors import KbsError
from kbs.policy.engine import Finding
from kbs.protocol.tee import Tee

_COLOURS: Final = {Tier.NONE: "dim", Tier.AFFIRMING: "green", Tier.WARNING: "yellow", Tier.CONTRAINDICATED: "red"}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found out about authentic evidence. `token`: signed, or None without a key."""

    tee: Tee
    at: datetime
    attested: Attested
    ear: Mapping[str, Json]
    token: str | None = field(repr=False)


def show_refused(
    error: KbsError, tee: Tee, at: datetime, *, as_json: bool, changed: Sequence[str] | None = None
) -> None:
    """Print class and reason of a refusal. Whoever appraises is the operator, so expected values are shown too.

    changed: what is otherwise than on record; None: nothing was compared.
    """
    found = {
        "authentic": False,
        "tee": tee.value,
        "at": at.isoformat(),
        "class": type(error).__name__,
        "reason": error.reason,
        "detail": error.operator_detail or str(error),
    }
    if as_json:
        click.echo(json.dumps({**found, **_compared(changed)}))
        return
    console = Console(highlight=False)
    console.print(Text(f"refused: {tee.value} evidence, verified at {found['at']}", style="bold red"))
    console.print(Text(f"{found['class']} ({found['reason']}): {_safe(found['detail'])}"), soft_wrap=True)
    _show_compared(changed)


def show_accepted(report: Report, *, as_json: bool, changed: Sequence[str] | None = None) -> None:
    """Print claims, trust vectors, what did not match, and the EAR. changed: see `show_refused`."""
    if as_json:
        click.echo(json.dumps({**_document(report), **_compared(changed)}))
        return
    console = Console(highlight=False)
    console.print(Text(f"authentic: {report.tee.value} evidence, verified at {report.at.isoformat()}", style="bold"))
    for appraisal in report.attested.result.appraisals:
        claims = claims_of(appraisal)
        status = Text(appraisal.status.value, style=_COLOURS[appraisal.status])
        console.print(Text.assemble(f"\n{appraisal.submod}: ", status, f", by policy {appraisal.policy_name}"))
        for name in ("binding", "revocation"):
            console.print(Text(f"{name}: {_safe(claims.get(name, 'absent'))}"))
        console.print(_claims_table(claims))
        console.print(_vector_table(appraisal))
        unmet = [finding for finding in report.attested.findings.get(appraisal.submod, ()) if not finding.ok]
        if unmet:
            console.print(_findings_table(unmet))
    console.print(Text(f"\nEAR, {'unsigned' if report.token is None else 'signed'}:"))
    click.echo(json.dumps(report.ear, indent=2) if report.token is None else report.token)
    _show_compared(changed)


def _compared(changed: Sequence[str] | None) -> dict[str, Any]:
    return {} if changed is None else {"replay": {"same": not changed, "differences": list(changed)}}


def _show_compared(changed: Sequence[str] | None) -> None:
    if changed is None:
        return
    console = Console(highlight=False)
    if not changed:
        console.print(Text("replayed: the decision on record", style="bold green"))
        return
    console.print(Text("replayed: ANOTHER decision than on record", style="bold red"))
    for text in changed:
        console.print(Text(f"  {_safe(text)}"), soft_wrap=True)


def _document(report: Report) -> dict[str, Any]:
    appraisals = report.attested.result.appraisals
    return {
        "authentic": True,
        "tee": report.tee.value,
        "at": report.at.isoformat(),
        "submods": {
            each.submod: {
                "status": each.status.value,
                "trust_vector": each.vector,
                "binding": claims_of(each).get("binding"),
                "revocation": claims_of(each).get("revocation"),
                "claims": claims_of(each),
                "policy": {"name": each.policy_name, "digest": each.policy_digest},
                "findings": [asdict(finding) for finding in report.attested.findings.get(each.submod, ())],
            }
            for each in appraisals
        },
        "ear": report.ear,
        **({} if report.token is None else {"token": report.token}),
    }


def _claims_table(claims: Mapping[str, Json]) -> Table:
    table = Table("claim", "value", title="claims", title_justify="left")
    for path, value in _flat(claims, ""):
        table.add_row(Text(path, overflow="fold"), Text(value, overflow="fold"))
    return table


def _flat(value: Json, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _flat(member, f"{path}.{_safe(name)}" if path else _safe(name))
    else:
        yield path, json.dumps(value)


def _vector_table(appraisal: Appraisal) -> Table:
    table = Table("trust claim", "value", "tier", title="trust vector", title_justify="left")
    for name, value in appraisal.vector.items():
        found = tier(value)
        table.add_row(name, str(value), Text(found.value, style=_COLOURS[found]))
    return table


def _findings_table(findings: list[Finding]) -> Table:
    table = Table("rule", "claim", "seen", "expected", title="what did not match", title_justify="left")
    for each in findings:
        source = f" ({each.reference})" if each.reference else ""
        table.add_row(
            Text(_safe(each.rule)),
            Text(_safe(each.claim), overflow="fold"),
            Text("absent" if each.seen is None else json.dumps(each.seen), overflow="fold"),
            Text(("no value" if each.expected is None else json.dumps(each.expected)) + _safe(source), overflow="fold"),
        )
    return table


def _safe(text: Any) -> str:
    return json.dumps(str(text))[1:-1]
