"""`kbs policy eval`: what a policy says of one input, and why; nothing is set and nothing released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from kbs import strict_json
from kbs.admin.policy_evaluation import evaluate, reference_data
from kbs.admin.policy_scenario import ANY_REQUEST, Scenario, read_scenario, request_of, sets_of
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
from kbs.cli.output import click_echo, console, print_json, print_table, printable
from kbs.cli.policy_decision import FINDING_COLUMNS, DecisionQuestion, finding_row, show_decision
from kbs.cli.policy_files import PolicyFile, compiler, policy_files, workbench
from kbs.cli.policy_source import named_text, shipped_policy
from kbs.cli.policy_where import Where, anywhere
from kbs.client.policy_tools import PolicyToolClient
from kbs.clock import system_clock
from kbs.extensions import load
from kbs.policy.compile import decode_text
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.outcome import resource_input
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.policy.workbench import fixture_data

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOKEN_LIFE: Final = 300  # seconds


@click.command("eval")
@click.argument("path", type=_FILE, required=False)
@click.option("--input", "document", type=_FILE, help="Claims as the policy sees them: JSON.")
@click.option(
    "--fixture", metavar="TEE.NAME", help="Claims that come with kbs, such as snp.good. Wrong names list all."
)
@click.option("--case", "case", type=_FILE, help="Saved evidence: a file of `kbs appraise --save`.")
@click.option("--file", "scenario", type=_FILE, help="A document of the playground: policy, input and values in one.")
@click.option("--decision", metavar="ID", help="The kept input of a past decision of a broker.")
@click.option("--policy", "named", metavar="FILE|NAME", help="The policy, or the name of one that comes with kbs.")
@click.option("--id", "policy_id", help="With --decision: the policy that is replaced. Default: the one that decided.")
@click.option("--part", help="With --decision: the submodule of the evidence, such as cpu0.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write a document for the playground.")
@click.option("--reference-values", type=_FILE, help="JSON object. Default: those of the fixture, case or document.")
@click.option("--reference-sets", type=_FILE, help="JSON list of compound sets. Default: of the fixture or document.")
@click.option("--resource", help="What is asked for (resource policies). Default: default/key/1.")
@click.option("--plugin", help="Plugin that is asked (resource policies). Default: resource.")
@click.option("--identity", type=_FILE, help="JSON object for data.identity, such as a Pod's (resource policies).")
@click.option("--trace", is_flag=True, help="Show OPA's trace of the evaluation.")
@anywhere
def eval_command(
    path: Path | None,
    named: str | None,
    decision: str | None,
    policy_id: str | None,
    part: str | None,
    save: Path | None,
    trace: bool,
    kind: str | None,
    where: Where,
    as_json: bool,
    **given: Any,
) -> None:
    """Evaluate the policy at PATH over one input, in the broker's own engine.

    Evidence policies see claims, resource policies the claims of a token. Exits 0 whatever the policy says.
    """
    if path is not None and named is not None:
        raise click.UsageError("give the policy once: PATH or --policy")
    if decision is not None:
        if given_names := sorted(name for name, value in given.items() if value is not None):
            raise click.UsageError(f"--decision has its input already; leave out {', '.join(given_names)}")
        text = None if path is None else path.read_bytes()
        question = DecisionQuestion(decision, text if named is None else named_text(named, kind), policy_id, part)
        show_decision(question, where.needed_place(), save=save, trace=trace, as_json=as_json)
        return
    if policy_id is not None or part is not None:
        raise click.UsageError("--id and --part go with --decision")
    scenario = _scenario(path, named, kind, **given)
    if save is not None:
        save.write_bytes(scenario.encoded())
    answer = _answer(scenario, where, trace=trace)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _scenario(
    path: Path | None,
    named: str | None,
    kind: str | None,
    *,
    document: Path | None,
    fixture: str | None,
    case: Path | None,
    scenario: Path | None,
    reference_values: Path | None,
    reference_sets: Path | None,
    resource: str | None,
    plugin: str | None,
    identity: Path | None,
) -> Scenario:
    """Everything that is evaluated, from wherever it comes."""
    if sum(each is not None for each in (document, fixture, case, scenario)) != 1:
        raise click.UsageError("give one of --input, --fixture, --case, --file and --decision")
    read = None if scenario is None else read_scenario(scenario.read_bytes())
    if path is None and named is None:
        if read is None:
            raise click.UsageError("give a policy: PATH, --policy, or --file with a document that has one")
        policy_kind, text = read.kind, read.policy
    else:
        file = _named_file(path, named, kind)
        policy_kind, text = file.kind, decode_text(file.text)
    if read is not None:
        claims, values, sets, request = read.claims, read.values, read.sets, dict(read.request)
    else:
        claims, values, sets = _input(policy_kind, document, fixture, case)
        request = dict(ANY_REQUEST)
    if reference_values is not None:
        values = object_of(reference_values)
        sets = ()  # those would be of other values
    if reference_sets is not None:
        sets = sets_of(strict_json.decode(reference_sets.read_bytes(), limits=LIMITS))
    if plugin is not None:
        request["plugin"] = plugin
    if resource is not None:
        request["resource-path"] = resource.split("/")
    if identity is not None:
        request = dict(request_of({**request, "identity": object_of(identity)}))
    return Scenario(policy_kind, text, claims, values, request, sets)


def _named_file(path: Path | None, named: str | None, kind: str | None) -> PolicyFile:
    if path is not None:
        return policy_files(path, kind)[0]
    assert named is not None
    if Path(named).is_file():
        return policy_files(Path(named), kind)[0]
    policy = shipped_policy(named, kind)
    return PolicyFile(Path(named), policy.kind, policy.text.encode())


def _answer(scenario: Scenario, where: Where, *, trace: bool) -> dict[str, Any]:
    text = scenario.policy.encode()
    if where.place is not None:
        with where.place.admin() as admin:
            return PolicyToolClient(admin).evaluate(
                scenario.kind,
                text,
                scenario.claims,
                reference_values=scenario.values,
                reference_sets=scenario.sets,
                request=scenario.request,
                trace=trace,
            )
    file = PolicyFile(Path("policy.rego"), scenario.kind, text)
    policy = _policy(file, where.opa)
    answer = evaluate(
        WasmEngine(system_clock), policy, scenario.claims, scenario.values, scenario.request, scenario.sets
    )
    if trace:
        answer["trace"] = _trace(file, where.opa, scenario)
    return answer


def _policy(file: PolicyFile, opa: Path | None) -> Policy:
    """Shipped texts need no `opa`."""
    shipped = Shipped.load()
    name = shipped.recognise(file.kind, file.text)
    return shipped.policy(name) if name is not None else compiler(opa).compile(file.kind, file.text).policy


def _trace(file: PolicyFile, opa: Path | None, scenario: Scenario) -> str:
    encoded = strict_json.encode(dict(scenario.claims))
    if file.kind is PolicyKind.EVIDENCE:
        return workbench(opa).trace(file.kind, file.text, encoded, reference_data(scenario.values, scenario.sets))
    return workbench(opa).trace(file.kind, file.text, resource_input(encoded, scenario.request), {})


def _input(
    kind: PolicyKind, document: Path | None, fixture: str | None, case: Path | None
) -> tuple[Mapping[str, Json], Mapping[str, Json], Sequence[Mapping[str, Json]]]:
    """The input document, and the reference values and compound sets that stand beside it."""
    if document is not None:
        return object_of(document), {}, ()
    if fixture is not None:
        return _fixture(kind, fixture)
    assert case is not None
    saved = read_case(case.read_bytes())
    return _of_case(kind, saved), saved.references, ()


def _fixture(
    kind: PolicyKind, name: str
) -> tuple[Mapping[str, Json], Mapping[str, Json], Sequence[Mapping[str, Json]]]:
    data = fixture_data()
    known = data["fixtures"] if kind is PolicyKind.EVIDENCE else data["tokens"]
    tee, _, variant = name.partition(".")
    if variant not in known.get(tee, {}):
        names = ", ".join(f"{tee}.{variant}" for tee, variants in sorted(known.items()) for variant in sorted(variants))
        raise click.UsageError(f"--fixture is one of: {names}")
    values = data["references"].get(tee, {})
    return known[tee][variant], values, [{**values, "release": "good"}] if values else []


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
    if "error" in answer:
        out.print("[bold red]no proper answer[/]")
        click_echo(printable(str(answer["error"])))
        return
    if "allow" in answer:
        out.print("[green]allowed[/]" if answer["allow"] else "[bold red]denied[/]")
    else:
        colour = "green" if answer["status"] == "affirming" else "bold red"
        out.print(f"[{colour}]{answer['status']}[/]")
        print_table(("trust claim", "value"), sorted(answer["trust_claims"].items()))
    if answer["findings"]:
        out.print("\n[bold]what was compared[/]")
        print_table(FINDING_COLUMNS, (finding_row(each) for each in answer["findings"]))
    for line in answer.get("trace", "").splitlines():
        click_echo(printable(line))
