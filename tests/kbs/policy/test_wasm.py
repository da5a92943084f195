"""The Wasm engine: limits, hostile input, threads, forks, and that errors cost no later decision."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import PolicyBroken
from kbs.policy.engine import PolicyKind
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import NOW, REQUEST, document, snapshot
from tests.probe_policies import probe

EVIDENCE = probe(PolicyKind.EVIDENCE)
RESOURCE = probe(PolicyKind.RESOURCE)
CLAIMS = {"hardware": 2}


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmEngine]:
    made = WasmEngine(lambda: NOW)
    yield made
    made.close()


def call(engine: WasmEngine, function: str, *arguments: Any) -> Any:
    verdict = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "call": [function, arguments]}), snapshot())
    return verdict.extensions["answer"]


def test_it_answers(engine: WasmEngine) -> None:
    verdict = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "extensions": []}), snapshot())
    assert verdict.trust_claims == CLAIMS
    assert verdict.extensions == {}
    assert engine.authorize(RESOURCE, document({"answer": True}), REQUEST) is True


def test_missing_claims_are_broken_and_not_a_verdict(engine: WasmEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({}), snapshot())


@pytest.mark.parametrize("value", [None, 0, False, "text", [1, {"a": None}], {"deep": [1.5]}])
def test_reference_values_arrive_as_they_are(engine: WasmEngine, value: Any) -> None:
    values = snapshot({"id": value}, version=json.dumps(value))
    verdict = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "ask": "id"}), values)
    assert verdict.extensions == ({} if value is None else {"reference": value})


def test_an_absent_reference_value_is_null(engine: WasmEngine) -> None:
    verdict = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "ask": "other"}), snapshot({"id": 1}))
    assert verdict.extensions == {}


def test_a_new_version_of_the_reference_values_is_used_at_once(engine: WasmEngine) -> None:
    ask = document({"trust_claims": CLAIMS, "ask": "id"})
    for version in range(5):
        values = snapshot({"id": version}, version=str(version))
        assert engine.appraise(EVIDENCE, ask, values).extensions == {"reference": version}
    # An equal version number with other values is not taken for the same.
    assert engine.appraise(EVIDENCE, ask, snapshot({"id": "x"}, version="4")).extensions == {"reference": "x"}


@pytest.mark.parametrize("bomb", ["range", "loops", "text", "replace", "calls"])
def test_bombs_are_stopped_and_the_engine_goes_on(engine: WasmEngine, bomb: str) -> None:
    start = time.thread_time()
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({"bomb": bomb, "text": "x" * 4000}), snapshot())
    assert time.thread_time() - start < 5
    test_it_answers(engine)


def test_a_resource_bomb_is_broken_not_a_no(engine: WasmEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.authorize(RESOURCE, document({"bomb": 10**9, "answer": True}), REQUEST)


def test_conflicting_rules_are_broken(engine: WasmEngine) -> None:
    with pytest.raises(PolicyBroken) as caught:
        engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "conflict": True}), snapshot())
    assert "policy.rego" in str(caught.value.operator_detail)
    assert "policy.rego" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"null", b"[]", b'"text"', b"7", b'{"trust_claims":{"hardware":2}', b'{"a":"\xff"}', b'{"a":"\\ud800"}',
     b'{"a":' * 20000, b"[" * 20000, b'{"a":"\xc0\x80"}'],
)  # fmt: skip
def test_input_that_is_no_object_gives_no_verdict(engine: WasmEngine, raw: bytes) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, raw, snapshot())
    test_it_answers(engine)


def test_claims_that_are_no_object_allow_nothing(engine: WasmEngine) -> None:
    for raw in (b"null", b"[]", b"1"):
        assert engine.authorize(RESOURCE, raw, REQUEST) is False


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_strings_survive_the_round_trip(text: str) -> None:
    shared = SHARED[0]
    asked = document({"trust_claims": CLAIMS, "extensions": [{"name": "e", "key": 1, "value": [text, {text: text}]}]})
    assert shared.appraise(EVIDENCE, asked, snapshot()).extensions == {"e": [text, {text: text}]}
    assert call(shared, "hex.encode", text) == text.encode().hex()


SHARED = [WasmEngine(lambda: NOW)]


@pytest.mark.parametrize(
    "text", ["\x00" * 3, "".join(map(chr, range(128))), '"\\"\\', "\U0001f512" * 1000, "x" * 1_000_000]
)
def test_hostile_strings_survive_the_round_trip(engine: WasmEngine, text: str) -> None:
    asked = document({"trust_claims": CLAIMS, "extensions": [{"name": "e", "key": 1, "value": text}]})
    assert engine.appraise(EVIDENCE, asked, snapshot()).extensions == {"e": text}


@pytest.mark.parametrize("number", [2**53 + 1, 2**64 - 1, 2**64, 10**30, -(10**399)])
def test_large_numbers_are_exact(engine: WasmEngine, number: int) -> None:
    asked = document({"trust_claims": CLAIMS, "extensions": [{"name": "e", "key": 1, "value": number}]})
    assert engine.appraise(EVIDENCE, asked, snapshot()).extensions == {"e": number}


def test_a_policy_of_the_other_kind_is_refused(engine: WasmEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(RESOURCE, document({}), snapshot())
    with pytest.raises(PolicyBroken):
        engine.authorize(EVIDENCE, document({}), REQUEST)


@pytest.mark.parametrize("wasm", [None, b"", b"\0asm", b"\0asm\1\0\0\0", b"x" * 1000])
def test_a_policy_without_a_usable_module_is_broken(engine: WasmEngine, wasm: bytes | None) -> None:
    with pytest.raises(PolicyBroken):
        engine.authorize(dataclasses.replace(RESOURCE, wasm=wasm, digest="other"), document({"answer": True}), REQUEST)


def test_a_module_that_imports_something_else_is_refused(engine: WasmEngine) -> None:
    import wasmtime

    foreign = wasmtime.wat2wasm('(module (import "wasi_snapshot_preview1" "fd_write" (func)))')
    with pytest.raises(PolicyBroken, match="could not be evaluated"):
        engine.prepare(dataclasses.replace(RESOURCE, wasm=bytes(foreign), digest="foreign"))


def test_a_damaged_set_of_reference_values_gives_no_verdict(engine: WasmEngine) -> None:
    values = dataclasses.replace(snapshot(version="damaged"), encoded=b'{"a":')
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "extensions": []}), values)
    test_it_answers(engine)


def test_findings_come_from_an_entry_point_of_their_own(engine: WasmEngine) -> None:
    found = engine.explain_authorization(RESOURCE, document({"answer": False}), REQUEST)
    assert [(finding.seen, finding.expected) for finding in found] == [
        ("resource", [["default", "key", "1"], {"x": "y"}])
    ]
    # No trust claims at all: the verdict is not evaluated for an explanation.
    one = {"rule": "hardware", "claim": "a.b", "reference": "r", "seen": None, "expected": 1, "ok": False}
    assert len(engine.explain_appraisal(EVIDENCE, document({"findings": [one]}), snapshot())) == 1
    assert engine.explain_appraisal(EVIDENCE, document({}), snapshot()) == ()


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("time.now_ns", [], [1781524800123456000] * 2),
        ("time.parse_rfc3339_ns", ["2026-06-15T12:00:00Z"], 1781524800000000000),
        ("time.parse_duration_ns", ["1h30m"], 5400 * 10**9),
        ("time.date", [1781524800000000000], [2026, 6, 15]),
        ("semver.compare", ["1.10.0", "1.9.9"], 1),
        ("semver.is_valid", [3], False),
        ("object.subset", [{"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}], True),
        ("object.subset of sets", [[1, 2, 3], [1, 3]], True),
        ("object.subset of sets", [[1], []], True),
        ("object.subset of sets", [[True], [1]], False),
        ("strings.any_prefix_match", [["ab", "c"], ["a"]], True),
        ("strings.count", ["aaaa", "aa"], 2),
        ("hex.encode", ["\u00e9"], "c3a9"),
        ("crypto.sha256", ["abc"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("crypto.hmac.equal", ["a", "a"], True),
        ("sprintf", ["%s=%d (%v) %%", ["a", 3, True]], "a=3 (true) %"),
        ("regex.replace", ["abc", "(b)", "<$1>"], "a<b>c"),
        ("regex.split", [",", "a,b"], ["a", "b"]),
        ("regex.find_n", ["[a-z]", "a1b2c", 2], ["a", "b"]),
        ("base64url.encode_no_pad", ["??>"], "Pz8-"),
        ("uuid.parse", ["00000000-0000-4000-8000-000000000000"], {"version": 4, "variant": "RFC4122"}),
    ],
)
def test_host_functions_answer_through_the_guest(
    engine: WasmEngine, function: str, arguments: list[Any], expected: Any
) -> None:
    assert call(engine, function, *arguments) == expected


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("hex.decode", ["zz"]),
        ("time.parse_rfc3339_ns", ["yesterday"]),
        ("semver.compare", ["1", "2"]),
        ("hex.encode", [1]),
    ],
)
def test_a_host_function_that_fails_is_undefined(engine: WasmEngine, function: str, arguments: list[Any]) -> None:
    verdict = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "call": [function, arguments]}), snapshot())
    assert verdict.extensions == {}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("sprintf", ["%5d", [1]]), ("time.parse_duration_ns", ["3d"]), ("time.date", [[1, "Europe/Paris"]]),
     ("strings.count", ["x" * 5_000_000, "y"])],
)  # fmt: skip
def test_what_a_host_function_does_not_offer_ends_the_evaluation(
    engine: WasmEngine, function: str, arguments: list[Any]
) -> None:
    with pytest.raises(PolicyBroken):
        call(engine, function, *arguments)
    test_it_answers(engine)


def test_threads_share_an_engine(engine: WasmEngine) -> None:
    """Two threads in one instance would abort the process; the barrier makes them meet."""
    barrier = threading.Barrier(4)

    def work(number: int) -> bool:
        barrier.wait()
        for turn in range(150):
            values = snapshot({"id": number}, version=f"{number}") if turn % 50 == 0 else snapshot({"id": 7}, "7")
            verdict = engine.appraise(EVIDENCE, document({"trust_claims": {"hardware": number}, "ask": "id"}), values)
            expected = number if turn % 50 == 0 else 7
            if verdict.trust_claims != {"hardware": number} or verdict.extensions != {"reference": expected}:
                return False
            if turn % 20 == 0:
                with pytest.raises(PolicyBroken):
                    engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "conflict": True}), values)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4


def test_idle_instances_are_bounded() -> None:
    engine = WasmEngine(lambda: NOW, max_idle=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: engine.authorize(RESOURCE, document({"answer": True}), REQUEST), range(60)))
    assert [len(slot.idle) for slot in engine._slots.values()] == [2]
    engine.close()
    assert not engine._slots


def _child(engine: WasmEngine, answers: Any) -> None:
    """Reuse the parent's instance, make one, trap one, and compile a module the parent never had."""
    values = snapshot({"id": "child"}, version="child")
    reused = engine.authorize(RESOURCE, document({"answer": True}), REQUEST)
    fresh = engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "ask": "id"}), values).extensions
    try:
        engine.authorize(RESOURCE, document({"bomb": 10**9}), REQUEST)
        trapped = False
    except PolicyBroken:
        trapped = True
    answers.put((reused, fresh, trapped))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_compiles_after_the_parent_compiled() -> None:
    """With wasmtime's parallel compilation the child would wait for ever (policy-engine.md 3.4)."""
    engine = WasmEngine(lambda: NOW)
    assert engine.authorize(RESOURCE, document({"answer": True}), REQUEST) is True
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    engine._lock.acquire()  # as if another thread were compiling at the moment of the fork
    child = context.Process(target=_child, args=(engine, answers))
    child.start()
    engine._lock.release()
    child.join(20)
    hung = child.is_alive()
    if hung:
        child.kill()
        child.join()
    assert not hung
    assert child.exitcode == 0
    assert answers.get() == (True, {"reference": "child"}, True)
    assert engine.authorize(RESOURCE, document({"answer": True}), REQUEST) is True


def test_memory_stays_flat(engine: WasmEngine) -> None:
    asked = document({"trust_claims": CLAIMS, "extensions": [{"name": "e", "key": 1, "value": "x" * 2000}]})
    values = snapshot()

    def resident() -> int:
        with open(f"/proc/{os.getpid()}/statm") as statm:
            return int(statm.read().split()[1])

    for _ in range(500):
        engine.appraise(EVIDENCE, asked, values)
    before = resident()
    for _ in range(5000):
        engine.appraise(EVIDENCE, asked, values)
    assert resident() - before < 500  # pages: 2 MiB


def test_the_interpreter_decides_alike() -> None:
    engine = WasmEngine(lambda: NOW, interpreter=True)
    assert engine.authorize(RESOURCE, document({"answer": True}), REQUEST) is True
    assert engine.authorize(RESOURCE, document({"answer": 1}), REQUEST) is False
    with pytest.raises(PolicyBroken):
        engine.authorize(RESOURCE, document({"bomb": 10**9}), REQUEST)
