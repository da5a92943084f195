"""The shipped policies: upstream's decisions to the letter, the strict defaults, and both through both engines."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.appraisal import status, tier
from kbs.attestation.model import Tier
from kbs.policy.engine import EvidenceVerdict, Finding, Policy
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from rvps.model import Snapshot

VECTORS = Path(__file__).parents[2] / "vectors" / "as"
CONFORMANCE: dict[str, Any] = json.loads((VECTORS / "default-policy-conformance.json").read_text(encoding="utf-8"))
STRICT: dict[str, Any] = json.loads((VECTORS / "strict-differences.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = CONFORMANCE["cases"]
DIFFERENCES: dict[str, dict[str, Any]] = {entry["case"]: entry for entry in STRICT["differences"]}

BADNESS = {Tier.NONE: 0, Tier.AFFIRMING: 1, Tier.WARNING: 2, Tier.CONTRAINDICATED: 3}
BEST = {"executables": 3, "hardware": 2, "configuration": 2}
HARDWARE = ["az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "se", "sgx", "snp", "tdx", "tpm"]
RESOURCE_REQUEST = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {}}

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['policy']}: {case['case']}")


@cache
def policy(name: str) -> Policy:
    """A shipped policy with its module."""
    return Shipped.load().policy(name)


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmEngine]:
    wasm = WasmEngine(lambda: datetime(2026, 6, 15, tzinfo=UTC))
    yield wasm
    wasm.close()


def snapshot(values: Mapping[str, Any]) -> Snapshot:
    encoded = json.dumps(values, separators=(",", ":")).encode()
    return Snapshot(version=encoded.decode(), values=values, encoded=encoded, valid_until=None)


def appraise(engine: WasmEngine, name: str, document: Any, references: Snapshot) -> EvidenceVerdict:
    return engine.appraise(policy(name), json.dumps(document).encode(), references)


def explain(engine: WasmEngine, name: str, document: Any, references: Snapshot) -> Sequence[Finding]:
    return engine.explain_appraisal(policy(name), json.dumps(document).encode(), references)


def device_class(case: Mapping[str, Any]) -> str:
    return str(case["policy"]).removeprefix("default_")


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """An input with the claims that the defaults ask for beyond upstream's; what it has already stays."""
    whole = copy.deepcopy(dict(document))
    for tee, added in STRICT["added_claims"].items():
        if tee in whole:
            _add(whole[tee], added)
    return whole


def _add(claims: dict[str, Any], added: Mapping[str, Any]) -> None:
    for name, value in added.items():
        if isinstance(value, dict):
            _add(claims.setdefault(name, {}), value)
        else:
            claims.setdefault(name, value)


def strict_expectation(case: Mapping[str, Any]) -> dict[str, int]:
    difference = DIFFERENCES.get(case["case"], {"expected_trust_claims": {}})
    return {**case["expected_trust_claims"], **difference["expected_trust_claims"]}


def check_extensions(case: Mapping[str, Any], verdict: EvidenceVerdict) -> None:
    expected = {entry["name"]: entry["value"] for entry in case.get("expected_extensions", [])}
    assert dict(verdict.extensions) == expected


def test_the_vectors_are_whole() -> None:
    names = {case["case"] for case in CASES}
    assert len(CASES) == len(names) == 39
    assert DIFFERENCES.keys() <= names
    assert all(entry["reason"] for entry in DIFFERENCES.values())


@each_case
def test_upstream_set_decides_as_upstream(engine: WasmEngine, case: dict[str, Any]) -> None:
    verdict = appraise(
        engine, f"evidence/upstream/{device_class(case)}", case["input"], snapshot(case["reference_values"])
    )
    assert dict(verdict.trust_claims) == case["expected_trust_claims"]
    assert status(verdict.trust_claims) == case["expected_status"]
    check_extensions(case, verdict)


@each_case
def test_defaults_decide_as_upstream_but_for_the_listed(engine: WasmEngine, case: dict[str, Any]) -> None:
    document, references = completed(case["input"]), snapshot(case["reference_values"])
    verdict = appraise(engine, f"evidence/{device_class(case)}", document, references)
    assert dict(verdict.trust_claims) == strict_expectation(case)
    assert (dict(verdict.trust_claims) == case["expected_trust_claims"]) == (case["case"] not in DIFFERENCES)
    check_extensions(case, verdict)


@each_case
def test_defaults_never_affirm_upstreams_claims_alone(engine: WasmEngine, case: dict[str, Any]) -> None:
    """Binding and revocation unsaid, for every TEE: absence is never consent (threat model P-REL-5)."""
    references = snapshot(case["reference_values"])
    verdict = appraise(engine, f"evidence/{device_class(case)}", case["input"], references)
    assert status(verdict.trust_claims) in {Tier.WARNING, Tier.CONTRAINDICATED}


@pytest.mark.parametrize(("name", "hardware"), [("evidence/upstream/cpu", 2), ("evidence/cpu", 97)])
def test_minimum_that_nobody_registered(engine: WasmEngine, name: str, hardware: int) -> None:
    assert CONFORMANCE["null_comparison_quirk"]["expected_hardware_upstream"] == 2
    assert STRICT["null_comparison_quirk"]["expected_hardware"] == 97
    case = CASES[0]
    values = {key: value for key, value in case["reference_values"].items() if key != "minimum_minor_version"}
    verdict = appraise(engine, name, completed(case["input"]), snapshot(values))
    assert verdict.trust_claims["hardware"] == hardware


@each_case
def test_findings_agree_with_the_verdict(engine: WasmEngine, case: dict[str, Any]) -> None:
    """A trust claim has its best value exactly when all of its findings are good."""
    document, references, name = completed(case["input"]), snapshot(case["reference_values"]), device_class(case)
    verdict = appraise(engine, f"evidence/{name}", document, references)
    findings = explain(engine, f"evidence/{name}", document, references)
    by_rule = {
        rule: [f.ok for f in group] for rule, group in itertools.groupby(findings, key=lambda finding: finding.rule)
    }
    assert by_rule.keys() <= BEST.keys()
    for rule, oks in by_rule.items():
        assert (verdict.trust_claims[rule] == BEST[rule]) == all(oks), rule
    for finding in findings:
        if finding.reference is not None:
            assert finding.expected == case["reference_values"].get(finding.reference)


def good_case(tee: str) -> tuple[dict[str, Any], dict[str, Any]]:
    case = next(c for c in CASES if tee in c["input"] and c["expected_status"] == "affirming")
    document = completed(case["input"])
    document.update(report_data="00", init_data="00", init_data_claims=None, runtime_data_claims={"nonce": "x"})
    return document, case["reference_values"]


def paths_of(document: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield (*prefix, name)
            yield from paths_of(value, (*prefix, name))


def without(document: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    left = copy.deepcopy(document)
    for path in paths:
        inner: Any = left
        for name in path[:-1]:
            inner = inner.get(name, {})
        inner.pop(path[-1], None)
    return left


def none_better(worse: EvidenceVerdict, base: EvidenceVerdict) -> bool:
    claims_ok = all(
        BADNESS[tier(worse.trust_claims[name])] >= BADNESS[tier(value)] for name, value in base.trust_claims.items()
    )
    return claims_ok and BADNESS[status(worse.trust_claims)] >= BADNESS[status(base.trust_claims)]


@pytest.mark.parametrize("tee", ["sample", "snp"])
def test_dropping_claims_never_helps(engine: WasmEngine, tee: str) -> None:
    """Every claim alone and in pairs, from the good document and from ones that are bad already (P-REL-5)."""
    good, values = good_case(tee)
    references = snapshot(values)
    spoilt = [good, _with(good, tee, binding="not_checked"), _with(good, tee, revocation="not_checked")]
    spoilt.append(_with(good, tee, debug=True, policy_debug_allowed=True, vmpl=2, provisional_firmware=True))
    needed = set()
    for number, document in enumerate(spoilt):
        base = appraise(engine, "evidence/cpu", document, references)
        assert (status(base.trust_claims) is Tier.AFFIRMING) == (number == 0)
        paths = list(paths_of(document))
        for count in (1, 2) if number == 0 else (1,):
            for dropped in itertools.combinations(paths, count):
                verdict = appraise(engine, "evidence/cpu", without(document, dropped), references)
                assert none_better(verdict, base), dropped
                if number == 0 and count == 1 and verdict.trust_claims != base.trust_claims:
                    needed.add(".".join(dropped[0]))
    looked_at = {f.claim for f in explain(engine, "evidence/cpu", good, references)}
    assert looked_at <= needed  # every check that a finding names bites


def _with(document: dict[str, Any], tee: str, **claims: Any) -> dict[str, Any]:
    return {**document, tee: {**document[tee], **claims}}


@pytest.mark.parametrize("tee", ["sample", "snp"])
def test_dropping_reference_values_never_helps(engine: WasmEngine, tee: str) -> None:
    good, values = good_case(tee)
    base = appraise(engine, "evidence/cpu", good, snapshot(values))
    for name in values:
        others: list[dict[str, Any]] = [{}, {name: None}, {name: []}, {name: {}}]
        for other in others:
            changed = snapshot({**{key: value for key, value in values.items() if key != name}, **other})
            verdict = appraise(engine, "evidence/cpu", good, changed)
            assert none_better(verdict, base)
            assert dict(verdict.trust_claims) != dict(base.trust_claims)
            failed = [f for f in explain(engine, "evidence/cpu", good, changed) if not f.ok]
            assert [f.reference for f in failed] == [name]


@pytest.mark.parametrize(
    ("tee", "claims"),
    [
        ("sample", {"debug": True}),
        ("sample", {"debug": None}),
        ("sample", {"debug": "false"}),
        *(("snp", {"vmpl": level}) for level in (1, 2, 3, 0xFFFFFFFF, "0", None, False)),
        ("snp", {"policy_debug_allowed": True}),
        ("snp", {"policy_migrate_ma": True}),
        ("snp", {"provisional_firmware": True}),
        *((tee, {"binding": value}) for tee in ("sample", "snp") for value in ("not_checked", None, True)),
        *((tee, {"revocation": value}) for tee in ("sample", "snp") for value in ("not_checked", None, True)),
        ("snp", {"revocation": None, "revocation_waived": True}),
        ("snp", {"revocation": "not_checked", "revocation_waived": "true"}),
    ],
)
def test_claims_that_forbid_affirming(engine: WasmEngine, tee: str, claims: dict[str, Any]) -> None:
    good, values = good_case(tee)
    verdict = appraise(engine, "evidence/cpu", _with(good, tee, **claims), snapshot(values))
    assert status(verdict.trust_claims) in {Tier.WARNING, Tier.CONTRAINDICATED}
    assert {tier(verdict.trust_claims[name]) for name in ("hardware", "configuration")} != {Tier.AFFIRMING}


def test_waived_revocation_affirms(engine: WasmEngine) -> None:
    good, values = good_case("snp")
    waived = _with(good, "snp", revocation="not_checked", revocation_waived=True)
    verdict = appraise(engine, "evidence/cpu", waived, snapshot(values))
    assert status(verdict.trust_claims) is Tier.AFFIRMING


def token(status_of_cpu: str = "affirming", /, **evidence: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in evidence.items()}
    return {"submods": {"cpu0": {"ear.status": status_of_cpu, "ear.veraison.annotated-evidence": named}}}


SNP, SAMPLE = token(snp={}), token(sample={})
WARNED = token("warning", snp={})
COMPOSITE = {
    "submods": {
        **SNP["submods"],
        "gpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"sampledevice": {}}},
    }
}
NO_CPU: dict[str, Any] = {"submods": {"gpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {}}}}
EMPTY: dict[str, Any] = {}
OTHER = "other plugin"

# policy → which of the tokens it opens resources to; OTHER: it opens another plugin to SNP
ADMITTED = {
    "resource/affirming": {"SNP"},
    "resource/sample-demo": {"SNP", "SAMPLE", "COMPOSITE"},
    "resource/allow-all": {"SNP", "SAMPLE", "WARNED", "COMPOSITE", "NO_CPU", "EMPTY"},
    "resource/deny-all": set[str](),
    "resource/by-identity": set[str](),
    "resource/by-image": set[str](),
    "resource/by-init-data": set[str](),
    "resource/by-pod-identity": set[str](),
    "resource/gpu-composite": set[str](),
    "resource/per-repository": set[str](),
    "resource/with-plugins": {"SNP", OTHER},
    "resource/with-status": {"SNP"},
    "resource/upstream/default": {"SNP", "WARNED", "COMPOSITE"},
    "resource/upstream/allow-all": {"SNP", "SAMPLE", "WARNED", "COMPOSITE", "NO_CPU", "EMPTY"},
    "resource/upstream/deny-all": set[str](),
    "resource/upstream/affirming": {"SNP", "SAMPLE", "COMPOSITE", "NO_CPU", OTHER},
}
TOKENS = {
    "SNP": SNP,
    "SAMPLE": SAMPLE,
    "WARNED": WARNED,
    "COMPOSITE": COMPOSITE,
    "NO_CPU": NO_CPU,
    "EMPTY": EMPTY,
    OTHER: SNP,
}


def test_every_resource_policy_is_in_the_table() -> None:
    assert {name for name in Shipped.load().names() if name.startswith("resource/")} == ADMITTED.keys()


@pytest.mark.parametrize("name", ADMITTED)
def test_resource_policies(engine: WasmEngine, name: str) -> None:
    for label, claims in TOKENS.items():
        request = {**RESOURCE_REQUEST, "plugin": "pkcs11"} if label == OTHER else RESOURCE_REQUEST
        encoded = json.dumps(claims).encode()
        allowed = engine.authorize(policy(name), encoded, request)
        assert allowed == (label in ADMITTED[name]), label
        findings = engine.explain_authorization(policy(name), encoded, request)
        if not name.startswith("resource/upstream/"):
            assert findings
            assert all(finding.ok for finding in findings) == allowed


@pytest.mark.parametrize("tee", HARDWARE)
def test_default_resource_policy_admits_affirming_hardware(engine: WasmEngine, tee: str) -> None:
    for name in ("resource/affirming", "resource/sample-demo"):
        assert engine.authorize(policy(name), json.dumps(token(**{tee: {}})).encode(), RESOURCE_REQUEST)


def test_findings_of_the_default_resource_policy_name_the_cause(engine: WasmEngine) -> None:
    found = engine.explain_authorization(policy("resource/affirming"), json.dumps(COMPOSITE).encode(), RESOURCE_REQUEST)
    path = "submods.gpu0.ear.veraison.annotated-evidence.sampledevice"
    assert [finding for finding in found if not finding.ok] == [Finding("allow", path, None, "present", None, False)]


def test_dropping_from_the_token_never_helps(engine: WasmEngine) -> None:
    """No member taken out of a refused token opens anything (P-REL-5)."""
    for refused in (SAMPLE, WARNED, NO_CPU, token(snp={}, sample={}, sampledevice={}), token("none", snp={})):
        for dropped in paths_of(refused):
            encoded = json.dumps(without(refused, [dropped])).encode()
            assert not engine.authorize(policy("resource/affirming"), encoded, RESOURCE_REQUEST), dropped


def test_examples_of_the_readme(engine: WasmEngine) -> None:
    text = (policies_folder() / "README.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    claims, verdict, refused, cause_of_refusal, cause_of_verdict = blocks
    references = snapshot({"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 5})
    assert json.dumps(references.values) in text
    answer = appraise(engine, "evidence/cpu", claims, references)
    assert dict(answer.trust_claims) == verdict["trust_claims"]
    assert dict(answer.extensions) == {entry["name"]: entry["value"] for entry in verdict["extensions"]}
    failed = [finding for finding in explain(engine, "evidence/cpu", claims, references) if not finding.ok]
    assert failed == [Finding(**cause_of_verdict)]
    token_json = json.dumps(refused).encode()
    assert not engine.authorize(policy("resource/affirming"), token_json, RESOURCE_REQUEST)
    found = engine.explain_authorization(policy("resource/affirming"), token_json, RESOURCE_REQUEST)
    assert [finding for finding in found if not finding.ok] == [Finding(**cause_of_refusal)]
