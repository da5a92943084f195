"""`rvps learn`: a draft of reference values from evidence that somebody trusts already. Registers nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from rvps.cli.compute.artifacts import FILE, read_small, told
from rvps.cli.compute.output import write_whole
from rvps.cli.compute.tables import show
from rvps.cli.connection import open_broker, shown
from rvps.cli.values import listed
from rvps.errors import ArtifactUnusable
from rvps.learn.evidence import MAX_DOCUMENT, read
from rvps.learn.proposal import Proposal, propose
from rvps.strict_json import NotStrictJson, decode
from rvps.value_set import Artifact, ValueSet, write


@click.command("learn")
@click.argument("file", type=FILE)
@click.option("--series", required=True, help="The line of releases that the values belong to.")
@click.option("--tee", help="TEE of bare claims; else what the evidence has to be of.")
@click.option("--known", type=FILE, help="What `rvps list --json` printed: marks what is stated already.")
@click.option("--url", help="Or a broker, or `rvps serve`, that is asked for them.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with an admin token, for --url.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="PEM of the only roots to trust, for --url.")
@click.option("--json", "as_json", is_flag=True, help="Print the value set document and nothing else.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the draft here.")
def learn(
    file: Path,
    series: str,
    tee: str | None,
    known: Path | None,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Propose values from FILE: `kbs appraise --json`, a record of `kbs appraise --save`, or bare claims.

    Only claims that the shipped policies look up are taken. Nothing is registered: look at the draft, sign it, have it
    approved.
    """
    if known is not None and url is not None:
        raise click.UsageError("--known and --url both say what is stated: give one of them")
    stated = (
        None
        if url is None
        else {line["name"]: line["value"] for line in listed(open_broker(url, token_file, ca_file)) if line["valid"]}
    )
    with told("take evidence of a machine in production state, verified now: kbs appraise --json"):
        learnt = read(read_small(file, MAX_DOCUMENT), tee)
        proposal = propose(learnt, stated if known is None else _stated(known))
        draft = ValueSet(series, proposal.values(), (Artifact.from_file(file),), learnt.tee)
        document = write(draft)
    if out is not None:
        write_whole(out, document + b"\n")
    if not as_json:
        _show(proposal)
    elif out is None:
        click.echo(document)
    notes = [f"not in this evidence: {name}" for name in proposal.absent]
    for note in (*learnt.doubts, *notes):
        click.echo(f"Note: {shown(note)}", err=True)
    if out is not None:
        click.echo(f"A draft in {shown(str(out))}; nothing is registered. Next: rvps sign", err=True)


def _stated(path: Path) -> dict[str, Any]:
    try:
        lines = decode(read_small(path), max_bytes=64 << 20)
    except NotStrictJson as err:
        raise ArtifactUnusable(f"{path.name}: {err}") from err
    if not isinstance(lines, list) or not all(
        isinstance(one, dict) and {"name", "value"} <= one.keys() for one in lines
    ):
        raise ArtifactUnusable(f"{path.name}: not what `rvps list --json` prints")
    return {str(one["name"]): one["value"] for one in lines if one.get("valid", True) is True}


def _show(proposal: Proposal) -> None:
    table = Table("claim", "name", "value", "", box=None)
    for line in proposal.lines:
        several = line.value if isinstance(line.value, list) else [line.value]
        text = ", ".join(one if isinstance(one, str) else json.dumps(one) for one in several)
        table.add_row(shown(line.claim), line.name, shown(text), "already known" if line.known else "new")
    show(table)
