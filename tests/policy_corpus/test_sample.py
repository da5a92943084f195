"""A sample of the corpus in every run of the tests; `make policy-corpus` asks everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kbs.errors import MalformedMessage, PayloadTooLarge, PolicyBroken
from kbs.policy.engine import PolicyEngine, PolicyKind
from kbs.policy.opa import OpaEngine
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.strict_json import decode, encode
from tests.policy_corpus.__main__ import NOW, opa_engine
from tests.policy_corpus.claims import sample, tokens
from tests.policy_corpus.comparison import REQUESTS, Comparison, Report, snapshot
from tests.policy_corpus.mutations import HOSTILE, HUGE, OTHER_TYPES
from tests.probe_policies import probe

SHIPPED = Shipped.load()
VALUES: tuple[Any, ...] = (*HOSTILE, *OTHER_TYPES, *HUGE, 2, 97, 127, 128, -128, -129, 2.0, 1e300, {"hardware": 2})


@pytest.fixture(scope="module")
def wasm() -> Iterator[WasmEngine]:
    engine = WasmEngine(lambda: NOW)
    yield engine
    engine.close()


@pytest.fixture
def server(opa: Path) -> Iterator[OpaEngine]:
    with opa_engine(opa) as engine:
        yield engine


@pytest.fixture
def comparison(wasm: WasmEngine, server: OpaEngine) -> Comparison:
    return Comparison(wasm, server, Report())


@pytest.mark.opa
@pytest.mark.parametrize("name", [name for name in SHIPPED.names() if name.startswith("evidence/")])
def test_evidence_policies_agree(comparison: Comparison, name: str) -> None:
    random = Random(name)
    claim_sets = sample()
    for claims in claim_sets if name == "evidence/cpu" else random.sample(claim_sets, 3):
        comparison.evidence(SHIPPED.policy(name), claims, 1, random)
    assert comparison.report.wrong == []
    assert comparison.report.asked >= 3 * 6


@pytest.mark.opa
@pytest.mark.parametrize("name", [name for name in SHIPPED.names() if name.startswith("resource/")])
def test_resource_policies_agree(comparison: Comparison, name: str) -> None:
    random = Random(name)
    claims = tokens()
    for label, token in (claims[-1], random.choice(claims)):  # the last is a workload that profiles recognize
        comparison.resource(SHIPPED.policy(name), label, token, 1, random)
    assert comparison.report.wrong == []
    assert comparison.report.asked == 2 * 20


@pytest.mark.opa
def test_every_type_of_result_agrees(comparison: Comparison) -> None:
    evidence, resource = probe(PolicyKind.EVIDENCE), probe(PolicyKind.RESOURCE)
    for value in VALUES:
        for members in ({"answer": value}, {"answer": value, "conflict": True}):
            document = encode(members)
            allowed = comparison.same(
                f"allow {value!r:.60}",
                lambda engine, document=document: engine.authorize(resource, document, REQUESTS[0]),
            )
            assert allowed in ((True,) if value is True and len(members) == 1 else (False, PolicyBroken))
        for claims in (value, {"hardware": value}):
            document = encode({"trust_claims": claims, "ask": "x"})
            comparison.same(
                f"trust_claims {claims!r:.60}",
                lambda engine, document=document: engine.appraise(evidence, document, snapshot({"x": [1]})),
            )
        extension = encode({"trust_claims": {"hardware": 2}, "extensions": [{"name": "e", "key": 1, "value": value}]})
        comparison.same(
            f"extension {value!r:.60}",
            lambda engine, document=extension: engine.appraise(evidence, document, snapshot({})),
        )
    assert comparison.report.wrong == []


@pytest.mark.parametrize("levels", [65, 10_000])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_deep_documents_are_cut_before_an_engine_sees_them(levels: int, opening: bytes, closing: bytes) -> None:
    with pytest.raises((MalformedMessage, PayloadTooLarge)):
        decode(opening * levels + b"1" + closing * levels)


@pytest.mark.parametrize("engine", ["wasm", pytest.param("server", marks=pytest.mark.opa)])
def test_deep_documents_that_reach_an_engine_are_no_allow(engine: str, request: pytest.FixtureRequest) -> None:
    asked: PolicyEngine = request.getfixturevalue(engine)
    deep = b'{"answer":true,"deep":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    try:
        allowed = asked.authorize(SHIPPED.policy("resource/affirming"), deep, REQUESTS[0])
    except PolicyBroken:
        allowed = False
    assert allowed is False
