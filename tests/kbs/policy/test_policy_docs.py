"""The worked example of every document in docs/policies about a shipped policy comes out as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.policy.engine import Finding
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import document, snapshot

DOCS = Path(__file__).parents[3] / "docs" / "policies"
SHIPPED = Shipped.load()
DEFAULTS = {"affirming", "allow-all", "cpu", "dcu", "deny-all", "gpu", "ppcie", "sample-demo", "switch"}
"""Described in policies/README.md."""
PROFILES = [name for name in SHIPPED.names() if "upstream" not in name and name.partition("/")[2] not in DEFAULTS]


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmEngine]:
    wasm = WasmEngine(lambda: datetime(2026, 6, 15, tzinfo=UTC))
    yield wasm
    wasm.close()


def blocks(name: str) -> list[Any]:
    text = (DOCS / f"{name.partition('/')[2]}.md").read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def not_well(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize("name", PROFILES)
def test_the_example_comes_out_as_documented(engine: WasmEngine, name: str) -> None:
    given, beside, verdict, findings = blocks(name)
    policy = SHIPPED.policy(name)
    if name.startswith("evidence/"):
        values = snapshot({}, sets=beside) if isinstance(beside, list) else snapshot(beside)
        assert dict(engine.appraise(policy, document(given), values).trust_claims) == verdict
        found = engine.explain_appraisal(policy, document(given), values)
    else:
        assert {"allow": engine.authorize(policy, document(given), beside)} == verdict
        found = engine.explain_authorization(policy, document(given), beside)
    assert not_well(found) == [Finding(**finding) for finding in findings]
    assert findings


def test_the_list_names_every_profile() -> None:
    text = (DOCS / "profiles.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[([\w-]+)\]", text, re.MULTILINE)) == {name.partition("/")[2] for name in PROFILES}
