"""`kbs k8s check`: would this Pod attest, and why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.markup import escape

from kbs.cli.connection import Place, broker_options
from kbs.cli.k8s_cluster import FILE, objects_of
from kbs.cli.output import console, fail, print_json, printable
from kbs.cli.secret_files import is_named, read_public
from kbs.client.admin import AdminClient
from kbs.client.errors import ClientError
from kbs.client.init_data import InitDataClient
from kbs.client.policy_tools import PolicyToolClient
from kbs.clock import system_clock
from kbs.errors import KbsError
from kbs.initdata.document import TEES
from kbs.k8s.check import broker as brokers
from kbs.k8s.check.local import Given, Report, check_pod
from kbs.k8s.check.model import Row, Verdict
from kbs.k8s.check.pods import pods_of
from kbs.k8s.documents import read
from kbs.k8s.model import WORKLOAD_PROFILE
from kbs.k8s.wiring.pod import mapping
from kbs.k8s.wiring.profile import profile_of
from kbs.policy.store import RESOURCE_POLICY_ID

_COLOURS: Final = {
    Verdict.BAD: "bold red",
    Verdict.WARNING: "yellow",
    Verdict.UNKNOWN: "magenta",
    Verdict.GOOD: "green",
}


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True, dir_okay=False, path_type=Path))
@click.option("--profile", type=FILE, help="A WorkloadProfile: look at Pods as the webhook would leave them.")
@click.option("--namespace", "-n", help="Of Pods that name none. Default: default.")
@click.option("--jwk", type=FILE, help="Public key of whoever seals: sealed secrets are verified with it.")
@click.option("--tee", type=click.Choice(sorted(TEES)), help="Which evidence guests send. Default: by runtime class.")
@broker_options()
def check_command(
    files: tuple[Path, ...],
    profile: Path | None,
    namespace: str | None,
    jwk: Path | None,
    tee: str | None,
    place: Place,
    as_json: bool,
) -> None:
    """Look at the Pods of FILES, and of Deployments, Jobs … in them: runtime class, init data, images, sealed secrets.

    WorkloadProfiles and Secrets in FILES are used too. With --url or --data, a broker is asked whether it expects the
    init data, and whether its policy would let a good guest have what the Pod asks for. Exit 1 if a Pod would not
    attest, or not get that.
    """
    objects = [each for file in files for each in objects_of(file)]
    profiles = [each for file in ([profile] if profile else ()) for each in objects_of(file)] + objects
    given = Given(
        profiles=[profile_of(read(WORKLOAD_PROFILE, each)) for each in _of("WorkloadProfile", profiles)],
        secrets={
            str(mapping(each.get("metadata"), "metadata of a Secret").get("name")): each
            for each in _of("Secret", objects)
        },
        key=None if jwk is None else read_public(jwk),
        tee=tee,
        at=system_clock(),
    )
    reports = [check_pod(each, given) for each in pods_of(objects, namespace)]
    if not reports:
        fail("there is no Pod in these files, and nothing that makes Pods", hint="kbs k8s check deployment.yaml")
        raise click.exceptions.Exit(1)
    if is_named(place):
        with place.admin() as admin:
            for report in reports:
                report.rows += brokers.ask(report, _Asked(admin), _guarded)
    _show(reports, as_json=as_json)
    if any(each.bad for each in reports):
        raise click.exceptions.Exit(1)


class _Asked:
    """Implements `kbs.k8s.check.broker.Broker`."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._text: bytes | None = None

    def tees(self) -> list[str]:
        """Of the status document."""
        found = self._admin.status().get("tees")
        return [str(each) for each in found] if isinstance(found, list) else []

    def origin(self, value: str) -> Mapping[str, Any]:
        """Asks the register."""
        return InitDataClient(self._admin).origin(value)

    def allows(self, claims: Mapping[str, Any], request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fetches the policy once."""
        if self._text is None:
            self._text = self._admin.policy("resource", RESOURCE_POLICY_ID).text.encode()
        return PolicyToolClient(self._admin).evaluate("resource", self._text, claims, request=request)


def _guarded(question: Callable[[], Any]) -> tuple[Any, str | None]:
    """An answer, or why there is none: one question that fails leaves the others."""
    try:
        return question(), None
    except (ClientError, KbsError) as err:
        return None, str(err)


def _of(kind: str, objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for each in objects if each.get("kind") == kind]


def _show(reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        pods = [
            {
                "pod": each.title,
                "ok": not each.bad,
                "tee": each.tee,
                "digest": each.document.digest.hex() if each.document else None,
                "requests": list(each.requests),
                "checks": [asdict(row) for row in each.rows],
            }
            for each in reports
        ]
        print_json({"ok": not any(each.bad for each in reports), "pods": pods})
        return
    for report in reports:
        _show_one(report)


def _show_one(report: Report) -> None:
    out = console()
    width = max(len(each.what) for each in report.rows)
    out.print(f"[bold]{escape(printable(report.title))}[/]")
    for row in report.rows:
        code = f" [dim]\\[{row.name}][/]" if row.name else ""
        out.print(f"  [{_COLOURS[row.verdict]}]{row.verdict.value:<7}[/] {row.what:<{width}}  {_text(row)}{code}")
        if row.hint and row.verdict is not Verdict.GOOD:
            out.print(f"  {'':<7} {'':<{width}}  [dim]{escape(printable(row.hint))}[/]")
    bad = sum(each.verdict is Verdict.BAD for each in report.rows)
    last = (
        f"[bold red]would not attest[/], or not get what it needs: {bad} reasons" if bad else "[green]would attest[/]"
    )
    out.print(f"  {last}")


def _text(row: Row) -> str:
    return escape(printable(row.text))
