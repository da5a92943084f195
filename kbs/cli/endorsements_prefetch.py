"""`kbs endorsements prefetch`: ask vendors now for what attestations will need later."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from kbs import config, strict_json
from kbs.attestation.enabled import verifier_options
from kbs.attestation.endorsements import EndorsementService, endorsement_service
from kbs.attestation.endorsements.contents import is_name, read_contents
from kbs.attestation.endorsements.intel import ROOT_CRL, IntelTee, PckCa, pck_crl_name, qe_identity_name
from kbs.attestation.model import EndorsementNeed, Evidence, Verifier
from kbs.cli.connection import walled
from kbs.cli.output import console, print_json
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid, EndorsementsUnavailable, EvidenceRejected, MalformedMessage, PayloadTooLarge
from kbs.extensions import load
from kbs.protocol.tee import TEE_ALIASES, Tee

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_LIMITS: Final = strict_json.Limits(size=8 << 20, tokens=2_000_000)
_COLOURS: Final = {"ready": "green", "absent": "yellow", "failed": "bold red"}


@dataclass(frozen=True, slots=True)
class _Fetched:
    """One name: `ready`; `absent`, no place has it; `failed`, a place did not answer."""

    name: str
    state: str
    detail: str
    valid_until: datetime | None = None


@click.command("prefetch")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Directory.")
@click.option("--tee", help="TEE of the evidence, as on the wire.")
@click.option("--evidence", "evidences", type=_FILE, multiple=True, help="Evidence JSON or raw report; repeatable.")
@click.option("--intel", "intels", multiple=True, metavar="TEE/FMSPC", help="E.g. tdx/00806f050000; repeatable.")
@click.option(
    "--amd", "amds", multiple=True, metavar="PRODUCT/HWID/TCB", help="E.g. Milan/HEX/04-00-18-db; repeatable."
)
@click.option("--hygon", "serials", multiple=True, metavar="SERIAL", help="Serial number or chip id; repeatable.")
@click.option("--name", "names", multiple=True, help="Any endorsement by its own name; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def prefetch_command(
    data: Path,
    tee: str | None,
    evidences: tuple[Path, ...],
    intels: tuple[str, ...],
    amds: tuple[str, ...],
    serials: tuple[str, ...],
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fetch what given evidence, or named platforms, will need. Exits 0 when all of it is there, else 1."""
    if bool(evidences) != (tee is not None):
        raise click.UsageError("--tee and --evidence belong together")
    wanted = [*names, *(f"hygon/hsk-cek/{serial}" for serial in serials)]
    for platform in intels:
        wanted += _intel(platform)
    for platform in amds:
        wanted += [f"amd/vcek/{platform}", f"amd/crl/{platform.partition('/')[0]}"]
    for name in wanted:
        if not is_name(name):
            raise click.UsageError(f"{name!r} is no name of an endorsement")
    settings = config.load(data)
    clock = system_clock
    service = endorsement_service(settings.endorsements, data, clock, client=_client())
    if tee is not None:
        wanted += _needs(settings, data, tee, evidences)
    found = [_fetch(service, name) for name in _with_progress(sorted(set(wanted)))]
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "state": each.state,
                    "detail": each.detail,
                    "valid_until": None if each.valid_until is None else each.valid_until.isoformat(),
                }
                for each in found
            ]
        )
    else:
        for each in found:
            console().print(Text(f"{each.state:<7}", style=_COLOURS[each.state]), Text(f"{each.name}  {each.detail}"))
    if any(each.state != "ready" for each in found) or not found:
        raise click.exceptions.Exit(1)


def _intel(platform: str) -> list[str]:
    """Everything that quotes of one platform family may need: which PCK CA it has only its quotes say."""
    tee, _, fmspc = platform.partition("/")
    if tee not in tuple(IntelTee):
        raise click.UsageError(f"{platform!r}: write tdx/FMSPC or sgx/FMSPC")
    identity = qe_identity_name(IntelTee(tee))
    return [f"intel/tcb/{tee}/{fmspc.lower()}", identity, *map(pck_crl_name, PckCa), ROOT_CRL]


def _needs(settings: config.Settings, data: Path, text: str, evidences: Iterable[Path]) -> list[str]:
    try:
        tee = TEE_ALIASES.get(text) or Tee(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is none of {', '.join(Tee)}") from None
    verifier: Verifier = load("kbs.verifiers", [tee])[tee](verifier_options(data, settings.attestation, tee))
    names: list[str] = []
    for path in evidences:
        try:
            names += [need.name for need in verifier.needs(Evidence(tee, _body(path.read_bytes())))]
        except (EvidenceRejected, MalformedMessage, PayloadTooLarge) as err:
            raise ConfigInvalid(f"{path}: {err}") from None
    return names


def _body(raw: bytes) -> Any:
    return strict_json.decode(raw, limits=_LIMITS) if raw.lstrip().startswith(b"{") else raw


def _client() -> httpx.Client | None:
    """In tests a transport stands in the context object of click, as for commands that speak to a broker."""
    transport: httpx.BaseTransport | None = click.get_current_context().obj
    return None if transport is None else httpx.Client(transport=transport)


def _fetch(service: EndorsementService, name: str) -> _Fetched:
    try:
        found = service.fetch([EndorsementNeed(name, required=True)]).items.get(name)
    except EndorsementsUnavailable as err:
        return _Fetched(name, "failed", err.operator_detail or str(err))
    if found is None:
        return _Fetched(name, "absent", "no place has it")
    try:
        contents = read_contents(name, found)
    except ValueError as err:
        return _Fetched(name, "failed", f"not what its name says: {err}")
    return _Fetched(name, "ready", f"until {contents.valid_until.date().isoformat()}", contents.valid_until)


def _with_progress(names: list[str]) -> Iterator[str]:
    """The same names; on a terminal with a bar on stderr that is gone in the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fetching", total=len(names))
        for name in names:
            progress.update(task, description=name)
            yield name
            progress.advance(task)
