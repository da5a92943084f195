"""Tools for policy authors over HTTP: lint, check, test, coverage, form and evaluation of texts that nobody has set.

They change nothing. All but lint and form run what somebody wrote, and `opa` takes a second of CPU for some: a worker
does one such thing at a time, and says so to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kbs.admin.decision_evaluation import DecisionEvaluation, Question
from kbs.admin.policy_evaluation import evaluate, reference_data
from kbs.admin.policy_scenario import kind_of, object_in, request_of, sets_of
from kbs.admin.policy_tools import PolicyTools
from kbs.audit.gate import Decided
from kbs.errors import MalformedMessage, PolicyBroken, RateLimited
from kbs.policy.engine import Policy, PolicyEngine, PolicyKind
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore
from kbs.web.administration.decode import document_response, json_object
from kbs.web.administration.policies import policy_text, tests_text
from kbs.web.model import Call, HttpResponse

_ANY_ID: Final = {PolicyKind.EVIDENCE: "default_cpu", PolicyKind.RESOURCE: RESOURCE_POLICY_ID}
_MAX_PATTERN: Final = 200  # characters
_AGAIN: Final = frozenset({"policy", "id", "part", "trace", "input"})


class PolicyToolRoutes:
    """What authors ask about texts and about past decisions."""

    def __init__(
        self, policies: PolicyStore, tools: PolicyTools, engine: PolicyEngine, decisions: DecisionEvaluation
    ) -> None:
        self._policies = policies
        self._tools = tools
        self._engine = engine
        self._decisions = decisions
        self._busy = threading.Lock()

    def lint(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/lint {"kind", "policy": base64url}: findings, errors first."""
        return self._answer(call, "lint", lambda kind, text, _: self._tools.lint(kind, text))

    def check(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/check {"kind", "policy", "tests"?}: all that an upload does; `ok`, `error`."""
        return self._answer(call, "check", lambda kind, text, given: self._tools.check(kind, text, tests_text(given)))

    def test(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/test {"kind", "policy", "tests", "run"?}: `passed`, and each test by name."""
        return self._answer(
            call, "test", lambda kind, text, given: self._tools.test(kind, text, _tests(given), _pattern(given))
        )

    def coverage(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/coverage {"kind", "policy", "tests"}: `percent`, `missed`."""
        return self._answer(call, "coverage", lambda kind, text, given: self._tools.coverage(kind, text, _tests(given)))

    def format(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/fmt {"policy"}: `text`, `changed`."""
        text = policy_text(json_object(call.request.body).get("policy"))
        with self._alone():
            return document_response(call, "policy-tools/fmt", self._tools.format(text))

    def evaluate(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/eval {"kind", "policy": base64url, "input", "reference_values"?,
        "reference_sets"?, "request"?, "trace"?}.

        A policy that gives no proper answer for the input is no fault of the broker here: `error` says which.
        """
        document = json_object(call.request.body)
        kind, text = kind_of(document.get("kind")), policy_text(document.get("policy"))
        claims, values = object_in(document, "input"), object_in(document, "reference_values", {})
        trace = _flag(document, "trace")
        sets, request = sets_of(document.get("reference_sets", [])), request_of(object_in(document, "request", {}))
        with self._alone():
            policy, _, warnings = self._policies.check(kind, _ANY_ID[kind], text)
            answer: dict[str, Any]
            try:
                answer = evaluate(self._engine, policy, claims, values, request, sets)
            except PolicyBroken as err:
                answer = {"kind": kind.value, "policy": policy.digest, "error": err.operator_detail or str(err)}
            if trace:
                answer["trace"] = self._tools.trace(kind, text, claims, reference_data(values, sets), request)
        return document_response(call, f"policy-tools/eval {policy.digest}", {**answer, "warnings": list(warnings)})

    def evaluate_decision(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/decisions/<id>/eval {"policy"?: base64url, "id"?, "part"?, "trace"?, "input"?}.

        Recorded and present outcome of a decision whose input is kept. The answer shows claims, with `"input": true`
        all of them; the record says who asked.
        """
        document = json_object(call.request.body)
        if unknown := document.keys() - _AGAIN:
            raise MalformedMessage(f"the body has the unknown member {sorted(unknown)[0][:64]!r}")
        decision = call.parameters[0]
        policy_id, part = _text(document, "id"), _text(document, "part")
        trace, with_input = _flag(document, "trace"), _flag(document, "input")
        with self._alone():
            policy: Policy | None = None
            if "policy" in document:
                text, kind = policy_text(document["policy"]), self._decisions.kind(decision)
                policy, _, _ = self._policies.check(kind, policy_id or _ANY_ID[kind], text)
            question = Question(policy, policy_id, part, trace, with_input)
            answer = self._decisions.evaluate(decision, question)
        what = f"{'input of ' if with_input else ''}decision {decision} evaluated"
        return document_response(call, what if policy is None else f"{what} under {policy.digest}", answer)

    def _answer(
        self, call: Call, tool: str, use: Callable[[PolicyKind, bytes, Mapping[str, Any]], dict[str, Any]]
    ) -> Decided[HttpResponse]:
        document = json_object(call.request.body)
        kind, text = kind_of(document.get("kind")), policy_text(document.get("policy"))
        with self._alone():
            answer = use(kind, text, document)
        return document_response(call, f"policy-tools/{tool} {answer['digest']}", answer)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RateLimited("this worker is busy with another author's policy; try again in a few seconds")
        try:
            yield
        finally:
            self._busy.release()


def _tests(document: Mapping[str, Any]) -> bytes:
    found = tests_text(document)
    if found is None:
        raise MalformedMessage("member tests is missing")
    return found


def _pattern(document: Mapping[str, Any]) -> str | None:
    found = _text(document, "run")
    if found is not None and (len(found) > _MAX_PATTERN or "\0" in found):
        raise MalformedMessage(f"member run is longer than {_MAX_PATTERN} characters, or has NUL in it")
    return found


def _text(document: Mapping[str, Any], name: str) -> str | None:
    found = document.get(name)
    if found is not None and not isinstance(found, str):
        raise MalformedMessage(f"member {name} is not a text")
    return found


def _flag(document: Mapping[str, Any], name: str) -> bool:
    found = document.get(name, False)
    if not isinstance(found, bool):
        raise MalformedMessage(f"member {name} is neither true nor false")
    return found
