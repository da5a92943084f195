"""`rvps why | expiring | drift | misses`: where a value comes from, when it ends, and what guests show instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click
from rich.table import Table
from rich.text import Text

from rvps.cli.compute.output import write_whole
from rvps.cli.compute.tables import show as show_table
from rvps.cli.connection import Broker, Failure, connection, decoded, open_broker, shown
from rvps.cli.sending import STATES, name_of
from rvps.cli.workflow import show_steps
from rvps.strict_json import NotStrictJson, decode

_NOUN: Final = "admin/reference-values"
_WITHIN: Final = re.compile(r"([0-9]{1,5})([hdw])", re.ASCII)
_SECONDS: Final = {"h": 3600, "d": 86_400, "w": 604_800}
_MAX_VALUE: Final = 1 << 20  # bytes of JSON on the command line


class Within(click.ParamType[int]):
    """`12h`, `30d`, `4w`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds."""
        if isinstance(value, int):
            return value
        found = _WITHIN.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no duration: write 12h, 30d or 4w", param, ctx)
        return int(found[1]) * _SECONDS[found[2]]


@click.command()
@click.argument("wanted", metavar="NAME|VALUE")
@click.argument("value", required=False)
@connection
def why(wanted: str, value: str | None, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Who stated a value, of which artifacts, until when; and which decisions used it.

    One word is the name of a value, or, where no such name is known, a value to look for. A VALUE is JSON, or text as
    it stands. Exit status 1 where policies do not get it.
    """
    broker = open_broker(url, token_file, ca_file)
    found = _asked(broker, wanted, value)
    if as_json:
        click.echo(json.dumps(found[0] if len(found) == 1 else found))
    else:
        for one in found:
            _show_why(one)
    if not all(one["matches"] for one in found):
        raise SystemExit(1)


def _asked(broker: Broker, wanted: str, value: str | None) -> list[dict[str, Any]]:
    if value is not None:
        return [_why(broker, wanted, _json_of(value))]
    found = _why(broker, wanted, None)
    if found["mentions"] or found["delivered"] is not None:
        return [found]
    text = json.dumps(_json_of(wanted))
    names = decoded(broker.send("GET", f"{_NOUN}/names?" + urlencode({"value": text})))
    return [_why(broker, name, _json_of(wanted)) for name in names] or [found]


def _why(broker: Broker, name: str, value: Any | None) -> dict[str, Any]:
    asked = {"name": name} if value is None else {"name": name, "value": json.dumps(value)}
    found = decoded(broker.send("GET", f"{_NOUN}/why?" + urlencode(asked)))
    if not isinstance(found, dict) or not {"mentions", "delivered", "matches", "reason"} <= found.keys():
        raise Failure("the answer says nothing of a value", "check that --url names a broker of this make")
    return {**found, "value": value}


def _json_of(text: str) -> Any:
    """What stands there as JSON; a digest, which is none (or a number with leading zeros), is a text."""
    if re.fullmatch(r"[0-9a-fA-F]{16,}", text):
        return text
    try:
        return decode(text.encode(), max_bytes=_MAX_VALUE)
    except (NotStrictJson, UnicodeEncodeError):
        return text


def _show_why(found: Mapping[str, Any]) -> None:
    value = "" if found["value"] is None else f" = {json.dumps(found['value'])}"
    click.echo(click.style(shown(f"{found['name']}{value}"), bold=True))
    word = click.style("yes", fg="green") if found["matches"] else click.style("no", fg="red")
    click.echo(f"{'delivered':<11}{word}: {shown(found['reason'])}")
    for mention in found["mentions"]:
        status = mention["status"]
        state = click.style(status["state"], fg=STATES.get(status["state"]))
        click.echo(f"\nstatement  {shown(status['digest'] or status['id'])}")
        click.echo(f"{'of':<11}{shown(name_of(status))}, {shown(status['issuer'])}")
        click.echo(f"{'state':<11}{state}: {shown(status['reason'])}")
        click.echo(f"{'until':<11}{shown(status['valid_until'])}")
        if mention["value"] is not None:
            click.echo(f"{'states':<11}{shown(json.dumps(mention['value']))}")
        if mention["bad"]:
            click.echo(f"{'known bad':<11}{shown(json.dumps(mention['bad']))}")
        for name, digests in status["artifacts"]:
            for algorithm, digits in digests.items():
                click.echo(f"{'artifact':<11}{shown(name)} {algorithm}:{shown(digits)}")
        show_steps(status)
    _show_decisions(found.get("decisions"))


def _show_decisions(used: Mapping[str, Any] | None) -> None:
    if used is None:
        click.echo("\ndecisions  a provider of its own sees none: ask a broker with --url")
        return
    since = f" since {used['since']}" if used["since"] else ""
    click.echo(
        f"\n{'decisions':<11}of the {used['looked_at']} kept{shown(since)}, {used['affirmed']} that looked it up were "
        f"affirmed, {used['other']} were not"
    )
    for one in used["newest"]:
        click.echo(f"{'decision':<11}{shown(one['decision'])} {shown(one['time'])} {shown(str(one['status']))}")
    if used["newest"]:
        click.echo(f"Next: kbs explain {shown(used['newest'][0]['decision'])}")


@click.command()
@click.option("--within", type=Within(), default="30d", show_default=True, help="12h, 30d, 4w.")
@connection
def expiring(within: int, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """List statements in force that expire soon, or have. Exit status 1 if there are any."""
    found = decoded(open_broker(url, token_file, ca_file).send("GET", f"{_NOUN}/expiring?within={within}"))
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        click.echo("Nothing in force expires within that time.")
    else:
        table = Table("statement", "series", "issuer", "names", "", "until", box=None)
        for one in found:
            word = Text("expired", style="red") if one["expired"] else Text("expires", style="yellow")
            named = ", ".join(one["names"][:3]) + (f" and {len(one['names']) - 3} more" if one["names"][3:] else "")
            series = "" if one["series"] is None else f"{one['series']} {one['serial']}"
            handle = (one["digest"] or one["statement"])[:16]
            table.add_row(
                shown(handle), shown(series), shown(one["issuer"]), shown(named), word, shown(one["valid_until"])
            )
        show_table(table)
        click.echo("Next: compute, sign and publish them again with a higher serial: rvps sign VALUESET --serial N")
    if found:
        raise SystemExit(1)


@click.command()
@click.option("--last", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Newest decisions.")
@click.option("--claims", "decision", metavar="DECISION", help="Write what one decision was made of, for `rvps learn`.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where --claims go.")
@connection
def drift(
    last: int,
    decision: str | None,
    out: Path | None,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """List values that guests presented and nobody states, from the decisions that the broker keeps.

    Exit status 1 if there are any.
    """
    if (out is None) != (decision is None):
        raise click.UsageError("--claims DECISION and -o FILE go together")
    broker = open_broker(url, token_file, ca_file)
    if decision is not None and out is not None:
        _write_claims(broker, decision, out, as_json=as_json)
        return
    found = decoded(broker.send("GET", f"{_NOUN}/drift?last={last}", None, {404: "ask a broker, which sees evidence"}))
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show_drift(found)
    if found["values"]:
        raise SystemExit(1)


def _write_claims(broker: Broker, decision: str, out: Path, *, as_json: bool) -> None:
    following = {404: "name an attestation, as `rvps drift` and `kbs explain` do", 403: "use a token of an auditor"}
    parts = decoded(broker.send("GET", f"admin/decisions/{decision}/claims", None, following))
    claims = next((one["claims"] for one in parts if one["part"].startswith("cpu")), None)
    if not isinstance(claims, dict):
        raise Failure("the decision has no claims of a CPU TEE", "name another decision")
    known = sorted(name for name, value in claims.items() if isinstance(value, dict) and "_claims" not in name)
    write_whole(out, json.dumps(claims).encode() + b"\n")
    if as_json:
        click.echo(json.dumps({"written": str(out), "tees": known}))
        return
    tee = known[0] if len(known) == 1 else "TEE"
    click.echo(f"Written to {shown(str(out))}. Next: rvps learn {shown(str(out))} --tee {shown(tee)} --series NAME")


def _show_drift(found: Mapping[str, Any]) -> None:
    since = f" since {shown(found['since'])}" if found["since"] else ""
    click.echo(f"{found['looked_at']} decisions looked at{since}")
    if not found["values"]:
        click.echo("Guests present nothing but what is stated.")
    else:
        table = Table("tee", "name", "value", "decisions", "refused", "newest", "what is said", box=None)
        for one in found["values"]:
            table.add_row(
                shown(one["tee"]),
                shown(one["name"]),
                shown(json.dumps(one["value"])),
                str(one["count"]),
                Text(str(one["refused"]), style="red" if one["refused"] else ""),
                shown(one["newest"]),
                shown(one["said"]),
            )
        show_table(table)
        if found["more"]:
            click.echo(f"… and {found['more']} more")
    for name, count in list(found["misses"].items())[:20]:
        click.echo(f"no value  {shown(name)}, looked up by {count} decisions")
    if found["values"]:
        newest = shown(found["values"][0]["newest"])
        click.echo(f"Next, if such a machine is right: rvps drift --claims {newest} -o claims.json, then rvps learn")


@click.command()
@connection
def misses(url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """List names that clients asked for and that had no value, most frequent first, since the process started.

    What policies looked up and did not find, over all processes: `rvps drift`. Exit status 1 if there are any.
    """
    found = decoded(open_broker(url, token_file, ca_file).send("GET", f"{_NOUN}/misses"))
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        click.echo("Nothing was asked for in vain.")
    else:
        table = Table("name", "asked for", box=None)
        for one in found:
            table.add_row(shown(one["name"]), str(one["count"]))
        show_table(table)
    if found:
        raise SystemExit(1)
