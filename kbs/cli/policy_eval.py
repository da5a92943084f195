"""`kbs policy eval`: what a policy says of one input, and why; nothing is set and nothing released."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from kbs import strict_json
from kbs.admin.policy_evaluation import evaluate
from kbs.attestation.cases import (
    Case,
    DefaultPolicies,
    GivenEndorsements,
    GivenReferences,
    fixed_snapshot,
    given_endorsements,
    read_case,
)
from kbs.attestation.ear import EarSettings, ear_claims
from kbs.attestation.model import Evidence, Json, VerifierOptions
from kbs.attestation.service import AttestationService, VerificationRequest, policy_input
from kbs.cli.appraise_inputs import LIMITS, object_of
from kbs.cli.connection import walled
from kbs.cli.output import click_echo, console, print_json, print_table, printable
from kbs.cli.policy_files import PolicyFile, compiler, policy_files, tool_options, workbench
from kbs.clock import system_clock
from kbs.extensions import load
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.outcome import resource_input
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.policy.workbench import fixture_data

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOKEN_LIFE: Final = 300  # seconds
_COLUMNS: Final = ("ok", "rule", "claim", "seen", "expected", "reference value")


@click.command("eval")
@click.argument("path", type=_FILE)
@click.option("--input", "document", type=_FILE, help="Claims as the policy sees them: JSON.")
@click.option(
    "--fixture", metavar="TEE.NAME", help="Claims that come with kbs, such as snp.good. Wrong names list all."
)
@click.option("--case", "case", type=_FILE, help="Saved evidence: a file of `kbs appraise --save`.")
@click.option("--reference-values", type=_FILE, help="JSON object. Default: those of the fixture or case.")
@click.option("--resource", default="default/key/1", show_default=True, help="What is asked for (resource policies).")
@click.option("--plugin", default="resource", show_default=True, help="Plugin that is asked (resource policies).")
@click.option("--trace", is_flag=True, help="Show OPA's trace of the evaluation.")
@tool_options
@walled
def eval_command(
    path: Path,
    document: Path | None,
    fixture: str | None,
    case: Path | None,
    reference_values: Path | None,
    resource: str,
    plugin: str,
    trace: bool,
    kind: str | None,
    opa: Path | None,
    as_json: bool,
) -> None:
    """Evaluate the policy at PATH over one input, in the broker's own engine.

    Evidence policies see claims, resource policies the claims of a token. Exits 0 whatever the policy says.
    """
    if sum(each is not None for each in (document, fixture, case)) != 1:
        raise click.UsageError("give one of --input, --fixture and --case")
    [file] = policy_files(path, kind)
    claims, values = _input(file.kind, document, fixture, case)
    if reference_values is not None:
        values = object_of(reference_values)
    request = {"plugin": plugin, "resource-path": resource.split("/"), "query": {}}
    policy = _policy(file, opa)
    answer = evaluate(WasmEngine(system_clock), policy, claims, values, request)
    if trace:
        answer["trace"] = _trace(file, opa, claims, values, request)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _policy(file: PolicyFile, opa: Path | None) -> Policy:
    """Shipped texts need no `opa`."""
    shipped = Shipped.load()
    name = shipped.recognise(file.kind, file.text)
    return shipped.policy(name) if name is not None else compiler(opa).compile(file.kind, file.text).policy


def _trace(
    file: PolicyFile, opa: Path | None, claims: Json, values: Mapping[str, Json], request: Mapping[str, Json]
) -> str:
    encoded = strict_json.encode(claims)
    if file.kind is PolicyKind.EVIDENCE:
        return workbench(opa).trace(file.kind, file.text, encoded, {"kbs": {"reference": dict(values)}})
    return workbench(opa).trace(file.kind, file.text, resource_input(encoded, request), {})


def _input(
    kind: PolicyKind, document: Path | None, fixture: str | None, case: Path | None
) -> tuple[Json, Mapping[str, Json]]:
    """The input document, and the reference values that stand beside it."""
    if document is not None:
        return _object(document), {}
    if fixture is not None:
        return _fixture(kind, fixture)
    assert case is not None
    saved = read_case(case.read_bytes())
    return _of_case(kind, saved), saved.references


def _object(path: Path) -> Json:
    found = strict_json.decode(path.read_bytes(), limits=LIMITS)
    if not isinstance(found, dict):
        raise click.UsageError(f"{path}: the input of a policy is a JSON object")
    return found


def _fixture(kind: PolicyKind, name: str) -> tuple[Json, Mapping[str, Json]]:
    data = fixture_data()
    known = data["fixtures"] if kind is PolicyKind.EVIDENCE else data["tokens"]
    tee, _, variant = name.partition(".")
    if variant not in known.get(tee, {}):
        names = ", ".join(f"{tee}.{variant}" for tee, variants in sorted(known.items()) for variant in sorted(variants))
        raise click.UsageError(f"--fixture is one of: {names}")
    return known[tee][variant], data["references"].get(tee, {})


def _of_case(kind: PolicyKind, case: Case) -> Json:
    """Verify saved evidence as of its time, and give what a policy of this kind sees of it.

    Raises:
        EvidenceRejected: it is not authentic; no policy is asked then.
    """
    verifier = load("kbs.verifiers", [case.tee])[case.tee](VerifierOptions(case.options, case.anchors))
    evidence = Evidence(case.tee, case.evidence)
    given = GivenEndorsements(given_endorsements(verifier, evidence, case.endorsements))
    engine, policies = WasmEngine(lambda: case.at), DefaultPolicies(Shipped.load())
    references = GivenReferences(fixed_snapshot(case.references))
    service = AttestationService({case.tee: verifier}, given, engine, policies, references)
    verified = service.verify([VerificationRequest(evidence, case.binding)], case.at)
    if kind is PolicyKind.EVIDENCE:
        return policy_input(verified[0])
    issued = int(case.at.timestamp())
    result = service.appraise(verified, fixed_snapshot(case.references)).result
    expires = issued + _TOKEN_LIFE
    return ear_claims(result, EarSettings(), issued_at=issued, expires=expires, issuer="kbs", token_id=case.name)


def _show(answer: Mapping[str, Any]) -> None:
    out = console()
    if "allow" in answer:
        out.print("[green]allowed[/]" if answer["allow"] else "[bold red]denied[/]")
    else:
        colour = "green" if answer["status"] == "affirming" else "bold red"
        out.print(f"[{colour}]{answer['status']}[/]")
        print_table(("trust claim", "value"), sorted(answer["trust_claims"].items()))
    if answer["findings"]:
        out.print("\n[bold]what was compared[/]")
        print_table(_COLUMNS, (_row(each) for each in answer["findings"]))
    for line in answer.get("trace", "").splitlines():
        click_echo(printable(line))


def _row(finding: Mapping[str, Any]) -> tuple[object, ...]:
    seen = "absent" if finding["seen"] is None else json.dumps(finding["seen"])
    expected = "no value" if finding["expected"] is None else json.dumps(finding["expected"])
    mark = "yes" if finding["ok"] else "NO"
    return (mark, finding["rule"], finding["claim"], seen, expected, finding["reference"])
