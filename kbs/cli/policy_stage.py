"""`kbs policy set --stage`, `candidate`, `activate`, `discard` and `what-if`: try a policy before it decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import click

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import click_echo, console, done, print_json, print_table, printable, show_code, to_seconds
from kbs.cli.policy_source import KIND, chosen, text_options
from kbs.client.policies import PolicyClient
from kbs.policy.engine import PolicyKind

_AFFIRMING: Final = 2  # AR4SI: the first value of the affirming tier
_WARNING: Final = 32  # and of the next


def _hint(place: Place) -> str:
    return f"kbs policy list {place_words(place)}".rstrip()


@click.command("set")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@text_options
@click.option("--stage", is_flag=True, help="As a candidate: evaluated beside the active one, without effect.")
@broker_options(hint=_hint)
def set_command(
    kind: str,
    policy_id: str,
    file: BinaryIO | None,
    shipped: str | None,
    tests: BinaryIO | None,
    no_tests: bool,
    reason: str | None,
    expected: int | None,
    stage: bool,
    place: Place,
    as_json: bool,
) -> None:
    """Set the policy ID of either kind; a scope is path:REPOSITORY, path:REPOSITORY:TYPE or tenant:NAME.

    With --stage, --expected is the version of the candidate to replace, 0 for none.
    """
    source = chosen(PolicyKind(kind), file, shipped, tests, no_tests=no_tests)
    with place.admin() as admin:
        policies = PolicyClient(admin)
        put = policies.stage if stage else policies.set
        version = put(kind, policy_id, source.text, tests=source.tests, reason=reason, expected=expected)
    if as_json:
        print_json({"kind": kind, "id": policy_id, "source": source.words, "version": version, "staged": stage})
        return
    done("staged" if stage else "set", f"{kind} policy {policy_id} from {source.words}, version {version}")


@click.command("candidate")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.option("--text", is_flag=True, help="Print the text, byte for byte.")
@broker_options(hint=_hint)
def candidate_command(kind: str, policy_id: str, text: bool, place: Place, as_json: bool) -> None:
    """Show what is staged for ID, and how the newest decisions would have gone with it."""
    with place.admin() as admin:
        found: Mapping[str, Any] = PolicyClient(admin).candidate(kind, policy_id)
    if as_json:
        print_json(found)
        return
    if text:
        show_code(str(found["text"]))
        return
    for name in ("version", "digest", "origin", "time", "author", "reason", "base"):
        click_echo(printable(f"{name:<10} {found.get(name)}"))
    shadow = found["shadow"]
    click_echo(f"decisions  {shadow['evaluated']} evaluated, {shadow['differing']} would have differed")
    for decision in shadow["decisions"]:
        click_echo(printable(f"  kbs explain {decision} {place_words(place)}".rstrip()))


@click.command("activate")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@click.option("--digest", help="Only if the candidate's text has this SHA-256.")
@click.option("--reason", help="Why; kept in the history.")
@click.option(
    "--expected",
    type=click.IntRange(min=0),
    help="Only if this version is the active one. Default: the one it was staged against.",
)
@broker_options(hint=_hint)
def activate_command(
    kind: str,
    policy_id: str,
    digest: str | None,
    reason: str | None,
    expected: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Make the candidate of ID the active policy."""
    with place.admin() as admin:
        version = PolicyClient(admin).activate(kind, policy_id, digest=digest, reason=reason, expected=expected)
    if as_json:
        print_json({"kind": kind, "id": policy_id, "version": version})
        return
    done("activated", f"{kind} policy {policy_id}, version {version}")


@click.command("discard")
@click.argument("kind", type=KIND)
@click.argument("policy_id", metavar="ID")
@broker_options(hint=_hint)
def discard_command(kind: str, policy_id: str, place: Place, as_json: bool) -> None:
    """Drop the candidate of ID. The active policy stays as it is."""
    with place.admin() as admin:
        PolicyClient(admin).discard(kind, policy_id)
    if as_json:
        print_json({"kind": kind, "id": policy_id, "discarded": True})
        return
    done("discarded", f"the candidate for the {kind} policy {policy_id}")


@click.command("what-if")
@click.argument("candidate", type=click.File("rb"), required=False)
@click.option("--kind", type=KIND, default=PolicyKind.RESOURCE.value, show_default=True, help="Kind of the policy.")
@click.option("--id", "policy_id", default="resource-policy", show_default=True, help="The policy it would replace.")
@click.option("--last", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Newest decisions.")
@broker_options(hint=_hint)
def what_if_command(
    candidate: BinaryIO | None, kind: str, policy_id: str, last: int, place: Place, as_json: bool
) -> None:
    """Replay past decisions against the file CANDIDATE, or against what is staged, and show which would change."""
    with place.admin() as admin:
        text = None if candidate is None else candidate.read()
        found: Mapping[str, Any] = PolicyClient(admin).what_if(kind, policy_id, text, last)
    if as_json:
        print_json(found)
        return
    since = f" since {to_seconds(found['oldest'])}" if found.get("oldest") else ""
    click_echo(f"{found['replayed']} decisions replayed{since}: {len(found['changed'])} would change")
    if found["changed"]:
        print_table(("decision", "what", "was", "would be", "because of"), map(_row, found["changed"]))
    if any(each["also_now"] for each in found["changed"]):
        console().print("[dim]*: so it would with the active policy, too: other rules changed since[/]")


def _row(changed: Mapping[str, Any]) -> tuple[object, ...]:
    causes = dict.fromkeys(f"{cause['claim']} is {json.dumps(cause['seen'])}" for cause in changed["causes"])
    after = _word(changed["after"]) + ("*" if changed["also_now"] else "")
    because = [*causes, *(f"extension {name}" for name in _other_extensions(changed))]
    return (changed["decision"], changed["subject"], _word(changed["before"]), after, "; ".join(because))


def _other_extensions(changed: Mapping[str, Any]) -> list[str]:
    before, after = (changed[when].get("extensions", {}) for when in ("before", "after"))
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _word(outcome: Mapping[str, Any]) -> str:
    if "error" in outcome:
        return f"error {outcome['error']}"
    if "allow" in outcome:
        return "granted" if outcome["allow"] else "denied"
    low = [f"{name} {value}" for name, value in outcome["vector"].items() if not _AFFIRMING <= value < _WARNING]
    return f"{outcome['status']} ({', '.join(low)})" if low else str(outcome["status"])
