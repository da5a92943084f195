"""The claim fixtures that come with the package, made anew from evidence; run as a program it writes them.

`policies/fixtures/<tee>.json` holds, by name, what policies see of one TEE: verified by the real verifiers from case
files of tests/vectors and from software attesters. `references.json` holds values under which `good` is affirming,
`tokens.json` what relying parties see, `claims.json` every member that occurs; `policies/schemas` says the same as JSON
Schema. test_fixtures.py compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kbs import strict_json
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
from kbs.attestation.model import Binding, Evidence, Json, VerifierOptions
from kbs.attestation.service import AttestationService, VerificationRequest, policy_input
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.snp import SoftwareSnp, default_tcb
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.client.sample_attester import SampleAttester
from kbs.policy.engine import Finding, PolicyEngine, PolicyKind
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from kbs.protocol.version import SPOKEN
from tests.fakes.case_files import FACTORIES

FOLDER: Final = policies_folder() / "fixtures"
SCHEMAS: Final = policies_folder() / "schemas"
AT: Final = datetime(2026, 6, 15, 12, tzinfo=UTC)
RUNTIME_DATA: Final = {
    "nonce": "bm9uY2Ugb2YgYSBjaGFsbGVuZ2UsIDMyIG9jdGV0cyE=",
    "tee-pubkey": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "AA", "y": "AA"},
}
NEWEST: Final = max(SPOKEN).value
_VECTORS: Final = Path(__file__).parent / "vectors"
_CASES: Final = {
    Tee.AZ_SNP_VTPM: {"good": "ok_v2", "debug": "debug", "vmpl1": "vmpl1", "secure_boot_off": "secure_boot_off"},
    Tee.AZ_TDX_VTPM: {"good": "ok_v2", "debug": "debug"},
    Tee.CCA: {"good": "ok_legacy", "debug": "lifecycle_debug", "out_of_date": "sw_component_changed"},
    Tee.CSV: {"good": "ok_v2", "old_report": "ok_v1", "debug": "debug_allowed"},
    Tee.HYGON_DCU: {"good": "ok"},
    Tee.SAMPLE_DEVICE: {"good": "sample_device_ok"},
    Tee.SE: {"good": "ok"},
    Tee.SGX: {"good": "ok_v3_processor_ca", "debug": "debug_enclave", "hardening_needed": "swhardening"},
    Tee.SNP: {
        "good": "ok_milan_v3", "turin": "ok_turin_v5", "vlek": "ok_vlek", "debug": "debug", "vmpl1": "vmpl1",
        "migratable": "migrate_ma", "out_of_date": "tee_tcb_downgrade",
    },
    Tee.TDX: {
        "good": "ok_v4", "td15": "ok_v5_td15", "debug": "debug_td", "out_of_date": "outofdate",
        "module_out_of_date": "module_outofdate", "quoting_enclave_out_of_date": "qe_outofdate",
        "hardening_needed": "config_sw", "relaunch_advised": "relaunch",
    },
    Tee.TPM: {"good": "ok"},
}  # fmt: skip
_FOLDERS: Final = {Tee.SAMPLE_DEVICE: "sample"}
_WITH_LOG: Final = (Tee.CSV, Tee.TDX)
_SOURCE: Final = {"from": "string", "name": "string", "owner": "string", "version": "number"}
"""Members of `init_data_source` (kbs.attestation.registered)."""
_OPEN: Final = frozenset({"runtime_data_claims", "init_data_claims", "details", "event", "vm-configuration"})
_WITHOUT_VERIFIER: Final = (Tee.NVIDIA, Tee.NVIDIA_DPU)


@dataclass(frozen=True, slots=True)
class Source:
    """Evidence that is verified for one fixture."""

    tee: Tee
    name: str
    case: Case


def sources() -> Iterator[Source]:
    """Every fixture's evidence; each `good` once more without anything to bind it to."""
    for tee, names in _CASES.items():
        for name, file in names.items():
            path = _VECTORS / _FOLDERS.get(tee, tee.value) / "synthetic" / f"{file}.json"
            yield Source(tee, name, read_case(path.read_bytes()))
    sample = SampleAttester(launch_digest="abcde", platform_version={"major": 1, "minor": 4}, debug=False)
    yield Source(Tee.SAMPLE, "good", _made(Tee.SAMPLE, sample.evidence_for(_DIGEST)))
    yield Source(Tee.SAMPLE, "debug", _made(Tee.SAMPLE, replace(sample, debug=True).evidence_for(_DIGEST)))
    old = replace(sample, svn="0", platform_version={"major": 1, "minor": 0})
    yield Source(Tee.SAMPLE, "out_of_date", _made(Tee.SAMPLE, old.evidence_for(_DIGEST)))
    for name, kind, is_debug in (
        ("good", "enclave", False),
        ("debug", "enclave", True),
        ("instance", "nitrotpm", False),
    ):
        nitro = SoftwareNitro(kind=kind, clock=lambda: AT)
        made = _made(Tee.NITRO, nitro.evidence(_DIGEST, is_debug=is_debug))
        yield Source(Tee.NITRO, name, replace(made, anchors=nitro.anchors))
    for tee in _WITH_LOG:
        machine = SOFTWARE_ATTESTERS[tee](TestRoot())
        made = _made(tee, machine.evidence_for(_DIGEST))
        made = replace(made, anchors=machine.anchors, options=machine.options, endorsements=machine.endorsements)
        yield Source(tee, "measured_boot", made)


_DIGEST: Final = bytes(range(48))
_OLD_INTEL: Final = Platform(components=(6,) * 16, pce_svn=12)
_INTEL_STATE: Final = (
    "advisory_ids", "platform_tcb_status", "tcb_date", "tcb_out_of_date_days", "tcb_out_of_date_since", "tcb_status",
)  # fmt: skip
_AMD_STATE: Final = tuple(f"{which}_tcb_bootloader" for which in ("committed", "current", "launch", "reported"))
_OLD_MACHINES: Final[Mapping[Tee, tuple[Callable[[], SoftwareAttester], Sequence[str]]]] = {
    Tee.SGX: (lambda: SoftwareSgx(TestRoot(), platform=_OLD_INTEL), _INTEL_STATE),
    Tee.AZ_TDX_VTPM: (lambda: SoftwareAzTdx(tdx=SoftwareTdx(TestRoot(), platform=_OLD_INTEL)), _INTEL_STATE),
    Tee.AZ_SNP_VTPM: (
        lambda: SoftwareAzSnp(snp=SoftwareSnp(TestRoot(), tcb=replace(default_tcb("Milan"), bootloader=1))),
        _AMD_STATE,
    ),
}
"""Machines with an old TCB, and the claims that say so; csv, hygondcu, nitro, se and tpm have no such state."""


def _out_of_date(
    documents: Mapping[str, dict[str, Any]], engine: PolicyEngine, policies: DefaultPolicies
) -> Iterator[tuple[Tee, dict[str, Any]]]:
    """The good guest on a machine whose TCB is old: what the verifier says of that, and the good one's other claims."""
    for tee, (machine_of, members) in _OLD_MACHINES.items():
        machine = machine_of()
        made = _made(tee, machine.evidence_for(_DIGEST))
        made = replace(made, anchors=machine.anchors, options=machine.options, endorsements=machine.endorsements)
        state = Workshop(made, engine, policies).document()[tee]
        good = documents[tee]["good"]
        assert isinstance(state, dict)
        yield tee, {**good, tee: {**good[tee], **{name: state[name] for name in members}}}


def _made(tee: Tee, evidence: Json) -> Case:
    options = {"enable_sample": True} if tee is Tee.SAMPLE else {}
    return Case(tee.value, tee, evidence, {}, None, options, AT, Binding(_DIGEST, None), {})


class Workshop:
    """The real pipeline over one case, with reference values of one's own."""

    def __init__(self, case: Case, engine: PolicyEngine, policies: DefaultPolicies) -> None:
        verifier = FACTORIES[case.tee](VerifierOptions(case.options, case.anchors))
        evidence = Evidence(case.tee, case.evidence)
        given = GivenEndorsements(given_endorsements(verifier, evidence, case.endorsements))
        references = GivenReferences(fixed_snapshot({}))
        self.engine, self.policies = engine, policies
        self.service = AttestationService({case.tee: verifier}, given, engine, policies, references)
        version = None if case.binding.report_data is None else NEWEST
        request = VerificationRequest(evidence, case.binding, RUNTIME_DATA, protocol_version=version)
        self.verified = self.service.verify([request], case.at)[:1]

    def document(self) -> dict[str, Json]:
        """What a policy sees."""
        return policy_input(self.verified[0])

    def references(self) -> dict[str, Json]:
        """Values that agree with these claims, for everything that the default policy looks up.

        Whether it wants a list or one value it does not say; so lists are tried first.
        """
        values: dict[str, Json] = {}
        for each in self._findings({}):
            if each.reference is not None and each.seen is not None:
                values.setdefault(each.reference, [each.seen])
        for each in self._findings(values):
            if each.reference in values and not each.ok:
                values[each.reference] = each.seen
        return values

    def _findings(self, values: Mapping[str, Json]) -> Sequence[Finding]:
        policy = self.policies.active(PolicyKind.EVIDENCE, f"default_{self.verified[0].claims.device_class}")
        encoded = strict_json.encode(self.document())
        return self.engine.explain_appraisal(policy, encoded, fixed_snapshot(values))

    def token(self, values: Mapping[str, Json]) -> dict[str, Json]:
        """The claims set of the token under these reference values."""
        result = self.service.appraise(self.verified, fixed_snapshot(values)).result
        issued = int(AT.timestamp())
        return ear_claims(
            result, EarSettings(), issued_at=issued, expires=issued + 300, issuer="kbs", token_id="0" * 32
        )


def make() -> dict[str, Any]:
    """Name of each file → its document."""
    documents: dict[str, dict[str, Any]] = {}
    references: dict[str, Any] = {}
    tokens: dict[str, Any] = {}
    engine, policies = WasmEngine(lambda: AT), DefaultPolicies(Shipped.load())
    for source in sources():
        work = Workshop(source.case, engine, policies)
        documents.setdefault(source.tee, {})[source.name] = work.document()
        if source.name == "good":
            unbound = Workshop(replace(source.case, binding=Binding(None, None)), engine, policies)
            documents[source.tee]["unbound"] = unbound.document()
            references[source.tee] = work.references()
            tokens[source.tee] = {"good": work.token(references[source.tee]), "unregistered": work.token({})}
    for tee, document in _out_of_date(documents, engine, policies):
        documents[tee]["out_of_date"] = document
    files: dict[str, Any] = {f"{tee}.json": variants for tee, variants in documents.items()}
    for tee in _WITH_LOG:  # its make-believe vendor has another key each time
        root = documents[tee]["good"][tee].get("root_key_id")
        documents[tee]["measured_boot"][tee] |= {} if root is None else {"root_key_id": root}
    files["references.json"] = references
    files["tokens.json"] = tokens
    files["claims.json"] = catalogue(documents)
    return files


def catalogue(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every member that occurs below each TEE, and the envelope's."""
    tree: dict[str, Any] = {"init_data": {}, "report_data": {}, "init_data_claims": "*", "runtime_data_claims": "*"}
    tree["protocol_version"] = {}
    tree["init_data_source"] = {name: {} for name in _SOURCE}
    for tee, variants in documents.items():
        for document in variants.values():
            tree[tee] = _merged(tree.get(tee, {}), _shape(document[tee]))
    tree |= {tee.value: "*" for tee in _WITHOUT_VERIFIER}
    return tree


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "*" if name in _OPEN else _shape(member) for name, member in value.items()}
    if isinstance(value, list):
        inside: Any = {}
        for each in value:
            inside = _merged(inside, _shape(each))
        return {"[]": inside}
    return {}


def _merged(one: Any, other: Any) -> Any:
    if "*" in (one, other):
        return "*"
    return {name: _merged(one.get(name, {}), other.get(name, {})) for name in {**one, **other}}


def schemas(files: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schemas of the two input documents, for editors and `opa check --schema`, from the documents themselves."""
    anything: dict[str, Any] = {}
    evidence = dict.fromkeys(("report_data", "init_data", "init_data_claims", "runtime_data_claims"), anything)
    evidence["protocol_version"] = {"type": "string"}
    evidence["init_data_source"] = _object({name: {"type": kind} for name, kind in _SOURCE.items()})
    tees: dict[str, Any] = {tee.value: anything for tee in _WITHOUT_VERIFIER}
    for tee in Tee:
        for document in files.get(f"{tee}.json", {}).values():
            tees[tee.value] = _both(tees.get(tee.value), _schema(document[tee]))
    appraisal = {
        "ear.status": {"type": "string"},
        "ear.trustworthiness-vector": {"type": "object", "additionalProperties": {"type": "number"}},
        "ear.veraison.annotated-evidence": _object({**evidence, **tees}),
    }
    submodule = {"type": "object", "properties": appraisal}  # policies may add extensions
    # OPA looks into named members only; those of devices are of any form.
    submods = {"type": "object", "properties": {"cpu0": submodule}, "additionalProperties": {"type": "object"}}
    members = dict.fromkeys(next(iter(files["tokens.json"].values()))["good"], anything)
    token = _object({**members, "submods": submods})
    return {
        "evidence-input.json": {**_HEAD, "title": "Input of an evidence policy", **_object({**evidence, **tees})},
        "resource-input.json": {**_HEAD, "title": "Input of a resource policy", **token},
    }


_HEAD: Final = {"$schema": "http://json-schema.org/draft-07/schema#"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return _object({name: {} if name in _OPEN else _schema(member) for name, member in value.items()})
    if isinstance(value, list):
        items: dict[str, Any] | None = None
        for each in value:
            items = _both(items, _schema(each))
        return {"type": "array", "items": items or {}}
    if value is None:
        return {}
    return {"type": "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"}


def _both(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """A schema that both kinds of values meet; of different types: any value."""
    if one is None or one == other:
        return other
    if one.get("type") != other.get("type"):
        return {}
    if one.get("type") == "array":
        return {"type": "array", "items": _both(one["items"], other["items"])}
    if one.get("type") != "object":
        return one
    names = {**one["properties"], **other["properties"]}
    return _object(
        {name: _both(one["properties"].get(name), other["properties"].get(name) or names[name]) for name in names}
    )


def encoded(document: Any) -> bytes:
    """As the files stand in the repository."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def main(write: Callable[[Path, bytes], object] = Path.write_bytes) -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    SCHEMAS.mkdir(exist_ok=True)
    files = make()
    for name, document in files.items():
        write(FOLDER / name, encoded(document))
    for name, document in schemas(files).items():
        write(SCHEMAS / name, encoded(document))


if __name__ == "__main__":
    main()
