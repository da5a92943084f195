"""The inputs: claims as verifiers made them from vectors and software attesters, tokens, and reference values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbs.attestation.model import Binding, Evidence, VerifierOptions
from kbs.errors import EvidenceRejected
from kbs.policy.rego_sources import policies_folder
from kbs.protocol.tee import Tee
from tests.fakes import case_files
from tests.kbs.attestation.dcap.quotes import collateral, quote, time_of

VECTORS = Path(__file__).parents[1] / "vectors"
_FIXTURES = policies_folder() / "fixtures"
_NO_TEE = {"claims", "references", "tokens"}
_REAL_QUOTES = ("tdx/phala_tdx_quote", "tdx/live_b0c06f", "tdx/tdx_quote_6", "sgx/phala_sgx_quote", "sgx/automata_v3")
IMAGE = f"registry.example/payments/api@sha256:{'1' * 64}"
INIT_DATA = {
    "init_data": "3a5f",
    "init_data_claims": {
        "agent_policy_claims": {
            "containers": [
                {
                    "OCI": {
                        "Annotations": {
                            "io.kubernetes.cri.image-name": IMAGE,
                            "io.kubernetes.cri.sandbox-name": "api-0",
                            "io.kubernetes.cri.sandbox-namespace": "payments",
                        },
                        "Process": {"User": {"UID": 65534}},
                    }
                }
            ]
        }
    },
}
PROFILE_REFERENCES: dict[str, Any] = {
    "allowed_images": [IMAGE],
    "allowed_namespaces": ["payments"],
    "init_data_digests": ["3a5f"],
    "tcb_grace_days": 10_000,
    "window_begins": "2000-01-01T00:00:00Z",
    "window_ends": "2200-01-01T00:00:00Z",
}
"""What the profiles ask for beside the default's reference values."""


@dataclass(frozen=True, slots=True)
class ClaimSet:
    """One policy input, and the reference values that approve the best of its TEE."""

    name: str
    document: dict[str, Any]
    references: dict[str, Any]


def sample() -> list[ClaimSet]:
    """The good claims of every TEE, by its software attester."""
    return [each for each in _fixtures() if each.name.endswith("/good")]


def everything() -> list[ClaimSet]:
    """All of the fixtures, the conformance vectors, the authentic case files and real quotes."""
    return [*_fixtures(), *_conformance(), *_case_files(), *_real_quotes()]


def tokens() -> list[tuple[str, dict[str, Any]]]:
    """Token claims of every TEE, and those of a workload whose evidence policy recognized it."""
    found = []
    for tee, by_name in _json(_FIXTURES / "tokens.json").items():
        for name, claims in by_name.items():
            found.append((f"{tee}/{name}", claims))
    evidence = {"snp": {"vmpl": 0}, **INIT_DATA}
    appraisal = {
        "ear.status": "affirming",
        "ear.trustworthiness-vector": {"hardware": 2, "instance-identity": 2},
        "ear.veraison.annotated-evidence": evidence,
    }
    gpu = {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"nvidia": {"measres": "success"}}}
    return [*found, ("snp/workload", {"submods": {"cpu0": appraisal, "gpu0": gpu}})]


def _fixtures() -> Iterator[ClaimSet]:
    references = _json(_FIXTURES / "references.json")
    for path in sorted(_FIXTURES.glob("*.json")):
        if path.stem in _NO_TEE:
            continue
        for name, document in _json(path).items():
            whole = {**document, **INIT_DATA}
            yield ClaimSet(f"{path.stem}/{name}", whole, {**references.get(path.stem, {}), **PROFILE_REFERENCES})


def _conformance() -> Iterator[ClaimSet]:
    for case in _json(VECTORS / "as" / "default-policy-conformance.json")["cases"]:
        yield ClaimSet(f"conformance/{case['case']}", case["input"], {**case["reference_values"], **PROFILE_REFERENCES})


def _case_files() -> Iterator[ClaimSet]:
    references = _json(_FIXTURES / "references.json")
    for path in sorted(VECTORS.glob("*/synthetic/*.json")):
        if not _json(path)["expect"]["authentic"]:
            continue
        case = case_files.load(path)
        tee = case.evidence.tee.value
        for verified in case.verify():
            document = {verified.tee.value: dict(verified.claims), **INIT_DATA}
            name = f"{tee}/{path.stem}/{verified.tee.value}"
            yield ClaimSet(name, document, {**references.get(tee, {}), **PROFILE_REFERENCES})


def _real_quotes() -> Iterator[ClaimSet]:
    for name in _REAL_QUOTES:
        tee = Tee(name.partition("/")[0])
        verifier = case_files.FACTORIES[tee](VerifierOptions({}, None))
        evidence = Evidence(tee, quote(name))
        try:
            given = verifier.endorsements_from(evidence, collateral(name))
            verified = verifier.verify(evidence, given, Binding(None), time_of(name))
        except EvidenceRejected as err:
            raise AssertionError(f"{name}: {err}") from err
        for each in verified:
            yield ClaimSet(name, {each.tee.value: dict(each.claims), **INIT_DATA}, PROFILE_REFERENCES)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
