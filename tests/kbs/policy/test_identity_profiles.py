"""Who a guest says it is, under the shipped profiles: claims made of real documents and replayed logs, by the compiled
policies. Data in a comment and rules that allow everything fool none of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.event_log import ccel
from kbs.attestation.init_data import RULES_CLAIM, parse_init_data
from kbs.client.attesters.event_log import SoftwareEventLog, confidential_boot
from kbs.initdata.toml_text import entry
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import document, snapshot

VECTORS: Any = json.loads(Path("tests/vectors/initdata/initdata-vectors.json").read_text())
AAEL: Any = json.loads(Path("tests/vectors/eventlog/aael-vectors.json").read_text())
PULL = AAEL["events"][1]["text"].split(" ", 2)
PULLED = f"registry.example/app:1@sha256:{'2' * 64}"
IMAGE = VECTORS["validated_identifiers"]["container_images"][0]
SHIPPED = Shipped.load()
FIXTURES = policies_folder() / "fixtures"
GOOD = {tee: json.loads((FIXTURES / f"{tee}.json").read_text())["good"] for tee in ("snp", "tdx")}
REFERENCES: Any = json.loads((FIXTURES / "references.json").read_text())
ANNOTATIONS = {"io.kubernetes.cri.image-name": IMAGE, "io.kubernetes.cri.sandbox-namespace": "payments"}
CONTAINER = {"OCI": {"Annotations": ANNOTATIONS, "Process": {"User": {"UID": 65535}}}}
DATA = json.dumps({"containers": [CONTAINER]}) + "\n"
RULES = "package agent_policy\n\ndefault CreateContainerRequest := false\ndefault SetPolicyRequest := false\n\n"
PERMISSIVE = RULES.replace("false", "true")
RULES_DIGEST = hashlib.sha256(RULES.encode()).hexdigest()


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmEngine]:
    wasm = WasmEngine(lambda: datetime(2026, 6, 15, tzinfo=UTC))
    yield wasm
    wasm.close()


def guest(policy: str, tee: str = "snp", **labels: str) -> dict[str, Any]:
    """The claims of a good machine that was started with a document with this agent policy."""
    entries = {"policy.rego": policy, **{name.replace("_", "-"): text for name, text in labels.items()}}
    text = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n' + "".join(map(entry, entries, entries.values()))
    read = parse_init_data(text)
    return {**GOOD[tee], "init_data": read.digest.hex(), "init_data_claims": dict(read.claims)}


def judged(engine: WasmEngine, profile: str, claims: Any, tee: str = "snp", **values: Any) -> tuple[Any, Any]:
    given = {**REFERENCES[tee], "allowed_images": [IMAGE], "allowed_namespaces": ["payments"], **values}
    verdict = engine.appraise(SHIPPED.policy(f"evidence/{profile}"), document(claims), snapshot(given))
    return verdict.trust_claims, verdict.extensions["ear.trustee.identifiers"]["validated"]


@pytest.mark.parametrize("profile", ["images", "namespace"])
def test_rules_that_nobody_approved_make_nobody(engine: WasmEngine, profile: str) -> None:
    commented = next(case["policy_rego"] for case in VECTORS["negative"] if case["name"] == "commented-policy-data")
    commented = commented.replace('{"containers": []}\n', DATA)
    approved: dict[str, Any] = {"agent_policy_rules_digests": [RULES_DIGEST]}
    assert judged(engine, profile, guest(RULES + "policy_data := " + DATA), **approved)[0]["instance-identity"] == 2
    for policy in (
        commented,
        PERMISSIVE + "policy_data := " + DATA,
        RULES + "# policy_data := " + DATA,
        RULES + "default ExecProcessRequest := true\npolicy_data := " + DATA,
        RULES + "policy_data := " + DATA + "default ExecProcessRequest := true\n",
    ):
        vector, identifiers = judged(engine, profile, guest(policy), **approved)
        assert vector["instance-identity"] == 97
        assert "namespaces" not in identifiers


def test_a_label_does_not_pass_for_approved_rules(engine: WasmEngine) -> None:
    claims = guest(PERMISSIVE + "policy_data := " + DATA, agent_policy_rules_sha256=RULES_DIGEST)
    renamed = parse_init_data(
        'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'
        + entry(RULES_CLAIM, RULES_DIGEST)
        + entry("policy.rego", PERMISSIVE + "# policy_data := " + DATA)
    )
    for said in (claims["init_data_claims"], dict(renamed.claims)):
        vector, _ = judged(
            engine, "images", {**claims, "init_data_claims": said}, agent_policy_rules_digests=[RULES_DIGEST]
        )
        assert vector["instance-identity"] == 97


@pytest.mark.parametrize("profile", ["cpu", "images", "namespace", "init-data"])
def test_identifiers_of_an_approved_document(engine: WasmEngine, profile: str) -> None:
    claims = guest(RULES + "policy_data := " + DATA, service_account="payments/api")
    upstream = VECTORS["validated_identifiers"]
    assert judged(engine, profile, claims)[1] == upstream, "nobody vouches: upstream's two, and nothing else"
    ours = {
        "annotations": {
            "io.kubernetes.cri.image-name": [IMAGE],
            "io.kubernetes.cri.sandbox-namespace": ["payments"],
        },
        "container_image_digests": [IMAGE.partition("@")[2]],
        "namespaces": ["payments"],
    }
    whole = judged(engine, profile, claims, init_data_digests=[claims["init_data"]])[1]
    assert whole == upstream | ours | {"service_accounts": ["payments/api"]}
    assert judged(engine, profile, claims, agent_policy_rules_digests=[RULES_DIGEST])[1] == upstream | ours
    assert judged(engine, profile, claims, insecure_trust_init_data_author=True)[1] == upstream | ours


def test_only_documents_count_for_the_profile_of_documents(engine: WasmEngine) -> None:
    claims = guest(RULES + "policy_data := " + DATA)
    values: dict[str, Any] = {"agent_policy_rules_digests": [RULES_DIGEST], "insecure_trust_init_data_author": True}
    assert judged(engine, "init-data", claims, **values)[0]["instance-identity"] == 97
    known = judged(engine, "init-data", claims, init_data_digests=[claims["init_data"]])
    assert known[0]["instance-identity"] == 2


def test_a_guest_that_sends_no_document(engine: WasmEngine) -> None:
    """Peer pods: the digest is measured, and nothing is said."""
    claims = guest(RULES + "policy_data := " + DATA) | {"init_data_claims": None}
    vector, identifiers = judged(engine, "images", claims, init_data_digests=[claims["init_data"]])
    assert (vector["executables"], identifiers) == (33, {})


# --- images that were pulled ------------------------------------------------------------------------------------------


def machine(*pulls: tuple[str, str, str]) -> SoftwareEventLog:
    log = confidential_boot()
    for pull in pulls:
        log.runtime(4, *pull)
    return log


def running(log: SoftwareEventLog, raw: bytes | None = None) -> dict[str, Any]:
    claims = guest(RULES + "policy_data := " + DATA, "tdx")
    seen = ccel.replay(log.to_bytes() if raw is None else raw, log.rtmrs()).as_claims()
    quote = json.loads(json.dumps(claims["tdx"]["quote"]))
    quote["body"]["rtmr_3"] = log.rtmrs()[3].hex()
    return {**claims, "tdx": {**claims["tdx"], **seen, "quote": quote}}


def executables(engine: WasmEngine, claims: Any, *allowed: str) -> int:
    vector, _ = judged(
        engine, "images", claims, "tdx", allowed_images=[IMAGE, *allowed], init_data_digests=[claims["init_data"]]
    )
    return int(vector["executables"])


def test_every_pull_has_to_be_allowed(engine: WasmEngine) -> None:
    good = tuple(PULL)
    bad = (*PULL[:2], PULL[2].replace("app", "evil"))
    text = (*PULL[:2], "evil")
    foreign = ("example.org", *bad[1:])
    assert executables(engine, running(machine())) in (3, 4)
    assert executables(engine, running(machine(good, good)), PULLED) in (3, 4)
    assert executables(engine, running(machine(good))) == 33
    for pulls in ((bad,), (good, bad), (bad, good), (good, text), (good, foreign)):
        assert executables(engine, running(machine(*pulls)), PULLED) == 33


def test_a_pull_is_not_hidden(engine: WasmEngine) -> None:
    log = machine((*PULL[:2], PULL[2].replace("app", "evil")))
    raw = log.to_bytes()
    for hidden in (
        raw.replace(b"evil", b"good"),
        raw.replace(b"PullImage", b"SomeOther"),
        raw.replace(b"LEAA", b"LEAB"),
    ):
        assert executables(engine, running(log, hidden), PULLED) == 33
    silent = running(log)
    for member in ("event_log", "runtime_events", "uefi_event_logs"):
        del silent["tdx"][member]
    assert executables(engine, silent, PULLED) == 33, "the log was left out, and the register says that there was one"


def test_an_image_that_was_asked_for_by_the_digest_of_an_index(engine: WasmEngine) -> None:
    """What was pulled is the platform's manifest: its digest has to be on the list."""
    index = PULL[2].replace("app:1", f"app@sha256:{'9' * 64}")
    claims = running(machine((*PULL[:2], index)))
    assert executables(engine, claims, f"registry.example/app@sha256:{'9' * 64}") == 33
    assert executables(engine, claims, f"registry.example/app@sha256:{'2' * 64}") in (3, 4)
