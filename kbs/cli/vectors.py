"""`kbs vectors`: run a folder of case files and say which come out wrong (`make vectors`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.clock import system_clock
from kbs.errors import PolicyBroken
from kbs.extensions import load
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee


@click.command("vectors")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tee", "label", help="What to call the folder in the report; each case names its own TEE.")
def vectors_command(folder: Path, label: str | None) -> None:
    """Run every case file of FOLDER, each by its own `tee` member. Uses no network and no built-in roots.

    Exits 0 when every case came out as it says, 1 when one did not, 2 when there is no case.
    """
    name = label or folder.name
    console = Console(highlight=False, soft_wrap=True)

    def show(judged: Judged) -> None:
        mark = Text("WRONG", style="bold red") if judged.wrong else Text("ok   ", style="green")
        why = f" [{'; '.join(judged.wrong)}]" if judged.wrong else ""
        console.print(Text.assemble(mark, _printable(f"  {name}/{judged.name}: {judged.outcome}{why}")))

    try:
        policies = DefaultPolicies(Shipped.load())
    except PolicyBroken as error:
        raise click.ClickException(f"{error}: {error.operator_detail}") from None
    cases, wrong = run_folder(folder, _factory, WasmEngine(system_clock), policies, show)
    if not cases:
        raise click.UsageError(f"{folder}: no case files")
    click.echo(f"{cases} cases, {wrong} wrong")
    if wrong:
        raise click.exceptions.Exit(1)


def _factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    return load("kbs.verifiers", [tee])[tee]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
