"""Tiers and statuses (AR4SI), and what a policy must not assert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.appraisal import status, tier, trust_vector
from kbs.attestation.model import TRUST_CLAIMS, Tier
from kbs.errors import PolicyBroken


@pytest.fixture
def appraisal(vectors: Path) -> Any:
    return json.loads((vectors / "as" / "appraisal.json").read_text())


def test_tier_of_claim_value(appraisal: Any) -> None:
    assert len(appraisal["tier_of_claim_value"]) == 21
    for case in appraisal["tier_of_claim_value"]:
        assert tier(case["value"]) == case["tier"]


def test_status_of_vector(appraisal: Any) -> None:
    assert len(appraisal["status_of_vector"]) == 6
    for case in appraisal["status_of_vector"]:
        assert status(trust_vector(case["vector"])) == case["status"]


def test_wide_integers_are_refused_where_the_reference_wraps(appraisal: Any) -> None:
    """Difference from the reference, whose 258 becomes 2 and affirms."""
    wrapped = 0
    for case in appraisal["trust_claim_integer_wrap"]["cases"]:
        value = case["policy_value"]
        if value == case["stored"]:
            assert trust_vector({"hardware": value}) == {"hardware": value}
            continue
        wrapped += 1
        with pytest.raises(PolicyBroken):
            trust_vector({"hardware": value})
    assert wrapped == 4


@pytest.mark.parametrize("value", [True, False, 2.0, "2", None, 128, -129, 10**30])
def test_only_small_integers_have_a_tier(value: Any) -> None:
    with pytest.raises(PolicyBroken):
        tier(value)
    with pytest.raises(PolicyBroken):
        status({"hardware": value})


@pytest.mark.parametrize("claims", [{}, {"hardware": 2, "kernel": 2}, {"Hardware": 2}])
def test_nothing_or_unknown_is_refused(claims: dict[str, int]) -> None:
    with pytest.raises(PolicyBroken):
        trust_vector(claims)


def test_an_unknown_claim_is_named() -> None:
    with pytest.raises(PolicyBroken, match="kernel"):
        trust_vector({"kernel": 2})


def test_the_vector_is_in_the_order_of_ar4si() -> None:
    assert tuple(trust_vector(dict.fromkeys(reversed(TRUST_CLAIMS), 2))) == TRUST_CLAIMS
    assert trust_vector({"hardware": 2, "configuration": 0}) == {"configuration": 0, "hardware": 2}


def test_an_empty_vector_asserts_nothing() -> None:
    assert status({}) is Tier.NONE


@given(st.dictionaries(st.sampled_from(TRUST_CLAIMS), st.integers(-128, 127), min_size=1))
def test_one_bad_claim_decides(claims: dict[str, int]) -> None:
    found = status(trust_vector(claims))
    assert found in {tier(value) for value in claims.values()}
    for name in claims:
        assert status({**claims, name: 97}) is Tier.CONTRAINDICATED
        assert status({**claims, name: -128}) is Tier.CONTRAINDICATED
