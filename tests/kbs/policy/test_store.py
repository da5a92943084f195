"""Active policies: defaults, changes, history, rollback, and damaged records."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from kbs.errors import (
    NameNotAllowed,
    PolicyBroken,
    PolicyCompilerMissing,
    PolicyUnacceptable,
    ResourceNotFound,
    StorageUnavailable,
    VersionConflict,
)
from kbs.policy import well_known
from kbs.policy.candidates import Candidates
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.store import Change, PolicyStore
from kbs.storage.memory import MemoryStore
from tests.kbs.policy.support import NOW

EVIDENCE, RESOURCE = PolicyKind.EVIDENCE, PolicyKind.RESOURCE
SHIPPED = Shipped.load()
CHANGE = Change("alice#1", NOW, "because")
TEXT = b'package policy\ndefault allow := false\nallow if data.plugin == "resource"\n'


@pytest.fixture
def kv() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Texts that stand for well-known ones, by shipped name: the real ones are not kept here."""
    texts = {entry.shipped: f"# stands for {name}".encode() for name, entry in well_known.BY_DIGEST.items()}
    table = {
        hashlib.sha256(texts[entry.shipped]).hexdigest(): well_known.WellKnown(
            entry.name, entry.kind, len(texts[entry.shipped]), entry.shipped, entry.warning
        )
        for entry in well_known.BY_DIGEST.values()
    }
    monkeypatch.setattr(well_known, "BY_DIGEST", table)
    return texts


def policies(kv: MemoryStore, opa: Path | None = None, **options: Any) -> PolicyStore:
    return PolicyStore(kv, Compiler(opa, lambda: 0), SHIPPED, **options)


@pytest.mark.parametrize(
    ("kind", "policy_id", "default", "upstream"),
    [
        (EVIDENCE, "default_cpu", "evidence/cpu", "evidence/upstream/cpu"),
        (EVIDENCE, "default_gpu", "evidence/gpu", "evidence/upstream/gpu"),
        (EVIDENCE, "default_switch", "evidence/switch", "evidence/upstream/switch"),
        (EVIDENCE, "default_ppcie", "evidence/ppcie", "evidence/upstream/ppcie"),
        (RESOURCE, "resource-policy", "resource/affirming", "resource/upstream/default"),
    ],
)
def test_shipped_policies_stand_where_nothing_is_set(
    kv: MemoryStore, kind: PolicyKind, policy_id: str, default: str, upstream: str
) -> None:
    assert policies(kv).active(kind, policy_id) == SHIPPED.policy(default)
    assert policies(kv, policy_set="upstream").active(kind, policy_id) == SHIPPED.policy(upstream)
    assert [version.version for version in policies(kv).history(kind, policy_id)] == [0]


@pytest.mark.parametrize("policy_id", ["default_nvidia-dpu", "default", "other", "", "../x", "a" * 200, "x\0"])
def test_an_id_without_policy_is_refused_and_named_to_the_operator(kv: MemoryStore, policy_id: str) -> None:
    with pytest.raises(PolicyBroken) as caught:
        policies(kv).active(EVIDENCE, policy_id)
    assert repr(policy_id[:128]) in str(caught.value.operator_detail)


def test_the_bare_id_default_is_refused_with_the_ids_that_work(kv: MemoryStore) -> None:
    with pytest.raises(PolicyUnacceptable, match="default_cpu"):
        policies(kv).set(EVIDENCE, "default", b"package policy\n", CHANGE)


@pytest.mark.parametrize(
    ("kind", "policy_id"),
    [
        (EVIDENCE, ""),
        (EVIDENCE, "a/b"),
        (EVIDENCE, "-x"),
        (EVIDENCE, "x" * 129),
        (EVIDENCE, "a\n"),
        (RESOURCE, "other"),
    ],
)
def test_ids_outside_the_grammar_are_refused(kv: MemoryStore, kind: PolicyKind, policy_id: str) -> None:
    with pytest.raises(NameNotAllowed):
        policies(kv).set(kind, policy_id, TEXT, CHANGE)


def test_without_opa_an_unknown_text_is_refused_with_the_one_line_fix(kv: MemoryStore) -> None:
    with pytest.raises(PolicyCompilerMissing) as caught:
        policies(kv).set(RESOURCE, "resource-policy", TEXT, CHANGE)
    assert str(caught.value).endswith("kbs opa install")
    assert policies(kv).active(RESOURCE, "resource-policy").origin == "shipped:resource/affirming"


def test_well_known_texts_work_without_opa(kv: MemoryStore, known: dict[str, bytes]) -> None:
    store = policies(kv)
    accepted = store.set(RESOURCE, "resource-policy", known["resource/upstream/allow-all"], CHANGE)
    assert accepted.version == 1
    assert accepted.warnings
    active = store.active(RESOURCE, "resource-policy")
    assert active == accepted.policy
    assert active.origin == "well-known:allow-all"
    assert active.text == SHIPPED.policy("resource/upstream/allow-all").text
    assert hashlib.sha256(active.text.encode()).hexdigest() == active.digest


def test_a_well_known_text_of_the_other_kind_is_not_recognised(kv: MemoryStore, known: dict[str, bytes]) -> None:
    with pytest.raises(PolicyCompilerMissing):
        policies(kv).set(EVIDENCE, "default_cpu", known["resource/upstream/allow-all"], CHANGE)


def test_every_well_known_text_has_a_shipped_policy_of_its_kind() -> None:
    assert len(well_known.BY_DIGEST) == 8
    for digest, entry in well_known.BY_DIGEST.items():
        assert len(bytes.fromhex(digest)) == 32
        assert SHIPPED.policy(entry.shipped).kind is entry.kind


def test_a_change_is_seen_by_other_readers_at_once(kv: MemoryStore, known: dict[str, bytes]) -> None:
    writer, reader = policies(kv), policies(kv)
    for name in ("deny-all", "allow-all", "affirming", "deny-all"):
        assert reader.active(RESOURCE, "resource-policy").text
        writer.set(RESOURCE, "resource-policy", known[f"resource/upstream/{name}"], CHANGE)
        assert reader.active(RESOURCE, "resource-policy").origin == f"well-known:{name}"


def test_history_and_rollback(kv: MemoryStore, known: dict[str, bytes]) -> None:
    store = policies(kv)
    store.set(RESOURCE, "resource-policy", known["resource/upstream/deny-all"], CHANGE)
    store.set(RESOURCE, "resource-policy", known["resource/upstream/affirming"], Change("bob#2", NOW, "second"))
    assert store.rollback(RESOURCE, "resource-policy", 1, CHANGE, expected=2).version == 3
    assert store.active(RESOURCE, "resource-policy").origin == "well-known:deny-all"
    assert store.rollback(RESOURCE, "resource-policy", 0, CHANGE).version == 4
    assert store.active(RESOURCE, "resource-policy").digest == SHIPPED.policy("resource/affirming").digest
    history = store.history(RESOURCE, "resource-policy")
    assert [version.version for version in history] == [0, 1, 2, 3, 4]
    assert (history[2].author, history[2].reason, history[2].time) == ("bob#2", "second", NOW.isoformat())
    current = store.current(RESOURCE, "resource-policy")
    assert current is not None
    assert current.version == 4
    with pytest.raises(ResourceNotFound):
        store.rollback(RESOURCE, "resource-policy", 9, CHANGE)
    with pytest.raises(ResourceNotFound):
        store.rollback(EVIDENCE, "custom_cpu", 0, CHANGE)


def test_list_names_shipped_and_set_ids(kv: MemoryStore, known: dict[str, bytes]) -> None:
    store = policies(kv)
    store.set(EVIDENCE, "default_cpu", known["evidence/upstream/cpu"], CHANGE)
    store.set(EVIDENCE, "strict_cpu", known["evidence/upstream/cpu"], CHANGE)
    found = {version.id: version.version for version in store.list(EVIDENCE)}
    shipped = {"default_dcu": 0, "default_gpu": 0, "default_ppcie": 0, "default_switch": 0}
    assert found == {"default_cpu": 1, "strict_cpu": 1, **shipped}
    assert store.current(EVIDENCE, "none") is None


def test_upstream_has_no_policy_for_dcu(kv: MemoryStore) -> None:
    assert policies(kv).active(EVIDENCE, "default_dcu") == SHIPPED.policy("evidence/dcu")
    with pytest.raises(PolicyBroken):
        policies(kv, policy_set="upstream").active(EVIDENCE, "default_dcu")


def test_of_two_writers_one_wins(kv: MemoryStore, known: dict[str, bytes]) -> None:
    won: list[int] = []
    lost: list[int] = []

    def write() -> None:
        try:
            text = known["resource/upstream/deny-all"]
            won.append(policies(kv).set(RESOURCE, "resource-policy", text, CHANGE, expected=0).version)
        except VersionConflict:
            lost.append(1)

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (won, len(lost)) == ([1], 7)


@pytest.mark.parametrize("damage", ["flip text", "flip module", "short", "empty", "meta", "format"])
def test_a_damaged_record_decides_nothing(kv: MemoryStore, known: dict[str, bytes], damage: str) -> None:
    policies(kv).set(RESOURCE, "resource-policy", known["resource/upstream/deny-all"], CHANGE)
    record = kv.get("resource-policy", "resource-policy")
    assert record is not None
    value, meta = bytearray(record.value), dict(record.meta)
    if damage == "flip text":
        value[20] ^= 1
    elif damage == "flip module":
        value[-1] ^= 1
    elif damage == "short":
        del value[-1]
    elif damage == "empty":
        value.clear()
    elif damage == "format":
        value[0] = 9
    else:
        del meta["digest"]
    kv.put("resource-policy", "resource-policy", bytes(value), meta=meta)
    with pytest.raises(StorageUnavailable):
        policies(kv).active(RESOURCE, "resource-policy")


def test_a_store_that_is_down_gives_no_policy_even_from_the_cache(
    kv: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = policies(kv)
    store.active(RESOURCE, "resource-policy")

    def down() -> int:
        raise StorageUnavailable("down")

    monkeypatch.setattr(kv, "change_token", down)
    with pytest.raises(StorageUnavailable):
        store.active(RESOURCE, "resource-policy")


@pytest.mark.opa
def test_an_upload_is_compiled_and_stored_whole(kv: MemoryStore, opa: Path) -> None:
    store = policies(kv, opa)
    accepted = store.set(RESOURCE, "resource-policy", TEXT, CHANGE)
    assert policies(kv).active(RESOURCE, "resource-policy") == accepted.policy
    assert accepted.policy.digest == hashlib.sha256(TEXT).hexdigest()
    assert store.history(RESOURCE, "resource-policy")[-1].opa_version.startswith("1.")
    with pytest.raises(PolicyUnacceptable):
        store.set(RESOURCE, "resource-policy", b"package policy\nallow if x\n", CHANGE)
    assert store.active(RESOURCE, "resource-policy") == accepted.policy
    assert json.dumps(accepted.policy.text)


@pytest.mark.opa
def test_the_history_has_which_tests_came_with_a_version(kv: MemoryStore, opa: Path) -> None:
    store, tests = policies(kv, opa), b"package policy_test\n\ntest_one if true\n"
    staged = Candidates(kv, store)
    store.set(RESOURCE, "resource-policy", TEXT, CHANGE, tests=tests)
    store.set(RESOURCE, "resource-policy", TEXT, CHANGE)
    store.rollback(RESOURCE, "resource-policy", 1, CHANGE)
    staged.stage(RESOURCE, "resource-policy", TEXT, CHANGE, tests=tests)
    staged.activate(RESOURCE, "resource-policy", CHANGE, digest=None)
    store.rollback(RESOURCE, "resource-policy", 0, CHANGE)
    digest = hashlib.sha256(tests).hexdigest()
    found = [each.tests for each in store.history(RESOURCE, "resource-policy")]
    assert found == ["", digest, "", digest, digest, ""]


@pytest.mark.opa
def test_checking_changes_nothing(kv: MemoryStore, opa: Path) -> None:
    policy, version, _ = policies(kv, opa).check(RESOURCE, "resource-policy", TEXT)
    assert policy.wasm
    assert version
    assert policies(kv).active(RESOURCE, "resource-policy").origin == "shipped:resource/affirming"
