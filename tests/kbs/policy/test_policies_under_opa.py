"""The shipped policies under the `opa` program: their own tests with full coverage, style, and the vectors.

Needs `opa` (KBS_OPA, PATH or ~/go/bin). All policies share `package policy`, so each is loaded by itself.
"""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kbs.policy.engine import PolicyKind
from kbs.policy.rego_sources import policies_folder
from tests.check_policies import SAMPLES, checks, library_modules

pytestmark = pytest.mark.opa

POLICIES = policies_folder()
VECTORS = Path(__file__).parents[2] / "vectors" / "as"
TESTS = sorted(path.relative_to(POLICIES).as_posix() for path in POLICIES.rglob("*_test.rego"))
LIBRARY = [POLICIES / name for name in (*library_modules(), SAMPLES)]
NAMES = sorted(
    path.relative_to(POLICIES).with_suffix("").as_posix()
    for kind in PolicyKind
    for path in (POLICIES / kind).rglob("*.rego")
    if not path.stem.endswith("_test")
)


def run(*arguments: str | Path) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_library(relative: str) -> list[Path]:
    path = POLICIES / relative
    return [*LIBRARY, *([] if path in LIBRARY else [path])]


def test_every_policy_has_tests() -> None:
    assert {f"{name}_test.rego" for name in NAMES} <= set(TESTS)
    libraries = {name for name in library_modules() if "prelude" not in name and "wrapper" not in name}
    assert {name.replace(".rego", "_test.rego") for name in libraries} <= set(TESTS)


@pytest.mark.parametrize("test", TESTS)
def test_rego_tests_cover_every_line(opa: Path, test: str) -> None:
    tested = test.replace("_test.rego", ".rego")
    files = [*with_library(tested), POLICIES / test]
    assert "PASS" in run(opa, "test", *files)
    covered = json.loads(run(opa, "test", "--coverage", *files))["files"]
    report = covered[str(POLICIES / tested)]
    assert report.get("coverage") == 100, report.get("not_covered")


@pytest.mark.parametrize("name", [name for name in checks() if not name.startswith("tests of ")])
def test_format_and_strict_check(opa: Path, name: str) -> None:
    run(opa, *checks()[name])


def _merge(claims: dict[str, Any], added: dict[str, Any]) -> None:
    for key, value in added.items():
        if isinstance(value, dict):
            _merge(claims.setdefault(key, {}), value)
        else:
            claims.setdefault(key, value)


@pytest.mark.parametrize("device", ["cpu", "gpu", "switch", "ppcie"])
@pytest.mark.parametrize("strict", [False, True], ids=["upstream", "default"])
def test_vectors(opa: Path, tmp_path: Path, device: str, strict: bool) -> None:
    """One run of opa over all vectors of one policy."""
    everything = json.loads((VECTORS / "default-policy-conformance.json").read_text(encoding="utf-8"))["cases"]
    ours = json.loads((VECTORS / "strict-differences.json").read_text(encoding="utf-8"))
    cases = [copy.deepcopy(case) for case in everything if case["policy"] == f"default_{device}"]
    expected = [dict(case["expected_trust_claims"]) for case in cases]
    if strict:
        for case, claims in zip(cases, expected, strict=True):
            for tee in ours["added_claims"].keys() & case["input"].keys():
                _merge(case["input"][tee], ours["added_claims"][tee])
            for entry in ours["differences"]:
                claims.update(entry["expected_trust_claims"] if entry["case"] == case["case"] else {})
    document = tmp_path / "cases.json"
    document.write_text(json.dumps({"cases": cases}), encoding="utf-8")
    files = with_library(f"evidence/{'' if strict else 'upstream/'}{device}.rego")
    query = (
        "[v | some c in data.cases; claims := c.input; values := c.reference_values;"
        " v := data.kbs.evidence.verdict.trust_claims with input as claims with data.kbs.reference as values]"
    )
    options = [argument for path in [*files, document] for argument in ("--data", path)]
    answer = json.loads(run(opa, "eval", "--format", "json", *options, query))
    assert answer["result"][0]["expressions"][0]["value"] == expected
