"""The claims that come with the package for authors' tests are what today's verifiers make of the same evidence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kbs.admin.policy_evaluation import evaluate
from kbs.attestation.appraisal import tier
from kbs.policy.engine import PolicyKind
from kbs.policy.lint.claims import Catalogue, Unknown, catalogue
from kbs.policy.opa_command import OpaCommand, write_modules
from kbs.policy.rego_sources import modules, policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.policy.workbench import fixture_data
from kbs.protocol.tee import Tee
from tests import policy_fixtures

MADE = policy_fixtures.make()
SCHEMAS = policy_fixtures.schemas(MADE)
WITH_FIXTURES = set(Tee) - {Tee.NVIDIA, Tee.NVIDIA_DPU}


@pytest.mark.parametrize("name", MADE)
def test_committed_files_are_true(name: str) -> None:
    committed = (policy_fixtures.FOLDER / name).read_bytes()
    assert committed == policy_fixtures.encoded(MADE[name]), "python -m tests.policy_fixtures writes them anew"


@pytest.mark.parametrize("name", SCHEMAS)
def test_committed_schemas_are_true(name: str) -> None:
    committed = (policy_fixtures.SCHEMAS / name).read_bytes()
    assert committed == policy_fixtures.encoded(SCHEMAS[name]), "python -m tests.policy_fixtures writes them anew"


@pytest.mark.opa
@pytest.mark.parametrize(
    "name", ["evidence/cpu", "evidence/upstream/cpu", "resource/affirming", "resource/sample-demo"]
)
def test_shipped_policies_fit_the_schemas(opa: Path, name: str) -> None:
    text = (policies_folder() / f"{name}.rego").read_text()
    assert _checked(opa, PolicyKind(name.split("/")[0]), text) == (0, "")


@pytest.mark.opa
@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("evidence", "trust_claims := {} if input.snp.mesurement", "policy.rego:3"),
        ("evidence", "trust_claims := {} if input.snpp", "policy.rego:3"),
        ("evidence", 'trust_claims := {} if input.snp.vmpl.x == "0"', "policy.rego:3"),
        ("resource", 'allow if input.submods.cpu0["ear.veraison.annotated-evidence"].snp.mesurement', "policy.rego:3"),
        ("resource", "allow if input.submod", "policy.rego:3"),
    ],
)
def test_schemas_find_misspelt_claims(opa: Path, kind: str, body: str, place: str) -> None:
    code, said = _checked(opa, PolicyKind(kind), f"package policy\n\n{body}\n")
    assert code != 0
    assert place in said


def _checked(opa: Path, kind: PolicyKind, text: str) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as name:
        files = write_modules(Path(name), modules(kind), text)
        schema = policy_fixtures.SCHEMAS / f"{kind}-input.json"
        own = [each for each in files if kind is PolicyKind.EVIDENCE or "wrapper" not in each]
        done = OpaCommand(opa).run(["check", "--schema", str(schema), *own], Path(name))
        return done.code, done.stderr


def test_there_are_no_others() -> None:
    assert {path.name for path in policy_fixtures.FOLDER.iterdir()} == MADE.keys()


def test_every_tee_with_a_verifier_has_good_and_unbound_claims() -> None:
    data = fixture_data()
    assert {Tee(name) for name in data["fixtures"]} == WITH_FIXTURES
    for tee, variants in data["fixtures"].items():
        assert {"good", "unbound"} <= variants.keys()
        assert variants["good"][tee]["binding"] == "checked"
        assert variants["unbound"][tee]["binding"] == "not_checked"


def test_good_is_affirming_under_its_values_and_not_without() -> None:
    data = fixture_data()
    for tee in WITH_FIXTURES - {Tee.SAMPLE_DEVICE}:
        assert _statuses(data["tokens"][tee]["good"]) == {"affirming"}
        assert _statuses(data["tokens"][tee]["unregistered"]) <= {"warning", "contraindicated"}
    assert data["references"]["snp"]["snp_launch_measurement"] == [
        data["fixtures"]["snp"]["good"]["snp"]["measurement"]
    ]


def test_an_old_machine_is_not_affirming_and_nothing_else_is_wrong_with_it() -> None:
    data, policy, engine = fixture_data(), Shipped.load().policy("evidence/cpu"), WasmEngine(lambda: policy_fixtures.AT)
    found: dict[str, set[str]] = {}
    for tee, variants in data["fixtures"].items():
        if "out_of_date" in variants:
            answer = evaluate(engine, policy, variants["out_of_date"], data["references"][tee], {})
            assert answer["status"] != "affirming", tee
            found[tee] = {each["claim"].rpartition(".")[2] for each in answer["findings"] if not each["ok"]}
    engine.close()
    assert found.keys() == {"az-snp-vtpm", "az-tdx-vtpm", "cca", "sample", "sgx", "snp", "tdx"}
    assert found["sgx"] == found["az-tdx-vtpm"] == {"tcb_status"}
    assert found["az-snp-vtpm"] == {"reported_tcb_bootloader"}


def _statuses(token: Any) -> set[str]:
    for appraisal in token["submods"].values():
        for value in appraisal["ear.trustworthiness-vector"].values():
            tier(value)
    return {appraisal["ear.status"] for appraisal in token["submods"].values()}


def test_the_catalogue_knows_every_member_of_every_fixture() -> None:
    for tee, variants in fixture_data()["fixtures"].items():
        for document in variants.values():
            for member in document[tee]:
                assert catalogue().unknown([tee, member]) is None


def test_unknown_members() -> None:
    found = Catalogue({"a": {"inner": {}, "list": {"[]": {"x": {}}}, "open": "*"}})
    assert found.unknown([]) is None
    assert found.unknown(["a", "inner"]) is None
    assert found.unknown(["a", None, "whatever"]) is None
    assert found.unknown(["a", "list", "0", "y"]) is None
    assert found.unknown(["a", "open", "y", "z"]) is None
    assert found.unknown(["a", "iner"]) == Unknown("a.iner", "a.inner")
    assert found.unknown(["zzz"]) == Unknown("zzz", None)
    assert found.unknown(["a", "inner", "deeper"]) == Unknown("a.inner.deeper", None)


def test_nothing_of_this_machine_is_in_them() -> None:
    assert "/" not in {text[:1] for text in _texts(json.loads(policy_fixtures.encoded(MADE)))}


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value] if isinstance(value, str) else []
