"""What the playground does with a policy and an input: lint, compile, evaluate, trace."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kbs import strict_json
from kbs.admin.policy_evaluation import evaluate, reference_data
from kbs.admin.policy_scenario import Scenario
from kbs.clock import Clock
from kbs.errors import KbsError, PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.compile import Compiler
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.lint import LintFinding
from kbs.policy.outcome import resource_input
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.policy.workbench import Workbench

_MOST_SHOWN: Final = 100_000  # characters of a result
_PATIENCE: Final = 15.0  # seconds to wait for another evaluation
_CUT: Final = "\n… cut"


@dataclass(frozen=True, slots=True)
class Ran:
    """What to show. error: why there is no result. headline: the result in a word. answer: all of it, as JSON text."""

    findings: Sequence[LintFinding] = ()
    error: str | None = None
    headline: str | None = None
    good: bool = False
    trust_claims: Sequence[tuple[str, int]] = ()
    comparisons: Sequence[Mapping[str, Any]] = ()
    answer: str = ""
    trace: str = ""
    note: str | None = None


class Runner:
    """Runs one scenario at a time, in an engine of its own that ends with it: nothing adds up.

    compiler: with an `opa`, or without; then only shipped texts are evaluated, and nothing is linted or traced.
    """

    def __init__(self, compiler: Compiler, clock: Clock) -> None:
        self._compiler = compiler
        self._clock = clock
        self._shipped = Shipped.load()
        self._one = threading.Lock()

    def run(self, scenario: Scenario, *, trace: bool) -> Ran:
        """Never raises for what a policy or an input does."""
        if not self._one.acquire(timeout=_PATIENCE):
            return Ran(error="another evaluation takes long; try again")
        try:
            return self._run(scenario, trace=trace)
        finally:
            self._one.release()

    def _run(self, scenario: Scenario, *, trace: bool) -> Ran:
        text = scenario.policy.encode()
        findings: Sequence[LintFinding] = ()
        note = None
        try:
            findings = self._compiler.lint(scenario.kind, text)
        except PolicyCompilerMissing:
            note = "Without opa on this machine nothing is linted or traced, and only policies that come with kbs run."
        except PolicyUnacceptable as err:
            return Ran(error=str(err))
        try:
            policy = self._policy(scenario.kind, text)
            answer = self._evaluate(policy, scenario)
            traced = self._trace(scenario, text) if trace and note is None else ""
        except KbsError as err:
            return Ran(findings, error=err.operator_detail or str(err), note=note)
        return _shown(answer, findings, traced, note)

    def _policy(self, kind: PolicyKind, text: bytes) -> Policy:
        name = self._shipped.recognise(kind, text)
        return self._shipped.policy(name) if name is not None else self._compiler.compile(kind, text).policy

    def _evaluate(self, policy: Policy, scenario: Scenario) -> dict[str, Any]:
        engine = WasmEngine(self._clock, max_idle=1)
        try:
            return evaluate(engine, policy, scenario.claims, scenario.values, scenario.request, scenario.sets)
        finally:
            engine.close()

    def _trace(self, scenario: Scenario, text: bytes) -> str:
        encoded = strict_json.encode(dict(scenario.claims))
        bench = Workbench(self._compiler.opa())
        if scenario.kind is PolicyKind.EVIDENCE:
            return bench.trace(scenario.kind, text, encoded, reference_data(scenario.values, scenario.sets))
        return bench.trace(scenario.kind, text, resource_input(encoded, scenario.request), {})


def _shown(answer: Mapping[str, Any], findings: Sequence[LintFinding], traced: str, note: str | None) -> Ran:
    members = {name: value for name, value in answer.items() if name != "findings"}
    if "allow" in answer:
        good, headline = answer["allow"] is True, "allowed" if answer["allow"] else "denied"
    else:
        good, headline = answer["status"] == "affirming", str(answer["status"])
    return Ran(
        findings=findings,
        headline=headline,
        good=good,
        trust_claims=sorted(answer.get("trust_claims", {}).items()),
        comparisons=answer["findings"],
        answer=_cut(json.dumps(members, indent=2, ensure_ascii=False)),
        trace=_cut(traced),
        note=note,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + _CUT
