"""Authors' tools of a broker, for machines without `opa`, and what it makes of its own past decisions.

Answers are the documents that `kbs policy … --json` prints of files. `kind` is `evidence` or `resource`. Methods raise
as `AdminClient` says; a text that cannot be read is `Refused` with status 422, a busy broker `TryLater`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbs.client.admin import AdminClient
from kbs.protocol import base64url
from kbs.strict_json import Json


class PolicyToolClient:
    """Lint, check, test, coverage, form and evaluation. Nothing is changed."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def lint(self, kind: str, text: bytes) -> dict[str, Json]:
        """`findings`, errors first."""
        return self._ask("lint", {"kind": kind, "policy": _encoded(text)})

    def check(self, kind: str, text: bytes, tests: bytes | None = None) -> dict[str, Json]:
        """All that an upload does: `ok`, `error`, `warnings`."""
        given = {} if tests is None else {"tests": _encoded(tests)}
        return self._ask("check", {"kind": kind, "policy": _encoded(text), **given})

    def test(self, kind: str, text: bytes, tests: bytes, only: str | None = None) -> dict[str, Json]:
        """`passed`, `tests`. only: a regular expression that their names must match."""
        named = {} if only is None else {"run": only}
        return self._ask("test", {"kind": kind, "policy": _encoded(text), "tests": _encoded(tests), **named})

    def coverage(self, kind: str, text: bytes, tests: bytes) -> dict[str, Json]:
        """`percent`, and `missed`: pairs of first and last line."""
        return self._ask("coverage", {"kind": kind, "policy": _encoded(text), "tests": _encoded(tests)})

    def format(self, text: bytes) -> dict[str, Json]:
        """`text` in the usual form, and whether it is `changed`."""
        return self._ask("fmt", {"policy": _encoded(text)})

    def evaluate(
        self,
        kind: str,
        text: bytes,
        claims: Mapping[str, Json],
        *,
        reference_values: Mapping[str, Json] | None = None,
        reference_sets: Sequence[Mapping[str, Json]] = (),
        request: Mapping[str, Json] | None = None,
        trace: bool = False,
    ) -> dict[str, Json]:
        """One policy over one input; `error` where it gives no proper answer. reference_sets: compound sets. trace:
        OPA's own, too."""
        message: dict[str, Json] = {"kind": kind, "policy": _encoded(text), "input": dict(claims)}
        if reference_values is not None:
            message["reference_values"] = dict(reference_values)
        if reference_sets:
            message["reference_sets"] = [dict(each) for each in reference_sets]
        if request is not None:
            message["request"] = dict(request)
        if trace:
            message["trace"] = True
        return self._ask("eval", message)

    def evaluate_decision(
        self,
        decision: str,
        *,
        text: bytes | None = None,
        policy_id: str | None = None,
        part: str | None = None,
        trace: bool = False,
        with_input: bool = False,
    ) -> dict[str, Json]:
        """A past decision, recorded and now. text: in place of today's policy under `policy_id`. part: submodule."""
        message: dict[str, Json] = {}
        if text is not None:
            message["policy"] = _encoded(text)
        for name, value in (("id", policy_id), ("part", part)):
            if value is not None:
                message[name] = value
        for name, wanted in (("trace", trace), ("input", with_input)):
            if wanted:
                message[name] = True
        return self._admin.members("POST", f"admin/decisions/{decision}/eval", message)

    def _ask(self, tool: str, message: dict[str, Json]) -> dict[str, Json]:
        return self._admin.members("POST", f"admin/policy-tools/{tool}", message)


def _encoded(text: bytes) -> str:
    return base64url.encode(text).decode("ascii")
