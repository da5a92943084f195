"""Measurements that others publish, and policies that they sign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.compute.pcr_documents import is_signed_policy, policy_of, read_policies, read_values
from rvps.errors import ArtifactUnusable

VECTORS = Path(__file__).parents[2] / "vectors/pcr"
POLICIES: list[dict[str, Any]] = json.loads((VECTORS / "policies.json").read_text())
A, B = "ab" * 32, "cd" * 32


def values(document: object, bank: str = "sha256") -> dict[int, list[str]]:
    read = read_values(json.dumps(document).encode(), bank)
    return {number: [one.hex() for one in several] for number, several in read.items()}


@pytest.mark.parametrize(
    "document",
    [
        {"measurements": {"sha256": {"pcr11": "0x" + A, "pcr04": "0x" + B}}},
        {"measurements": {"pcr11": A, "pcr04": B}},
        {"sha256": {"11": A.upper(), "4": B}, "sha384": {"11": "00"}},
        {"11": A, "4": B},
    ],
    ids=["pod VM", "without a bank", "by bank", "flat"],
)
def test_forms(document: object) -> None:
    assert values(document) == {4: [B], 11: [A]}


def test_what_systemd_measure_prints() -> None:
    output = json.loads((VECTORS / "systemd-measure.json").read_text())[0]["output"]
    assert values(output) == {11: [one["hash"] for one in output["sha256"]]}
    assert len(values(output, "sha384")[11]) == 4


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        "x",
        {"sha384": {"11": "cd" * 48}},
        {"sha256": {}},
        {"sha256": []},
        {"sha256": [{"pcr": 11}]},
        {"sha256": [{"pcr": True, "hash": A}]},
        {"sha256": [{"pcr": 24, "hash": A}]},
        {"sha256": [{"pcrs": [11], "pol": A}]},
        {"24": A},
        {"pcr-1": A},
        {"11": A, "pcr11": A},
        {"11": A, "comment": "x"},
        {"11": 5},
        {"11": A[:-2]},
        {"11": A + "00"},
        {"11": "0x" + A[:-2] + "zz"},
        {"11": "00" * 32},
        {"11": "ff" * 32},
    ],
    ids=range(20),
)
def test_what_is_refused(document: object) -> None:
    with pytest.raises(ArtifactUnusable):
        values(document)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"11": "1", "11": "1"}', b"[" * 100, b"\xff"], ids=range(5))
def test_what_is_no_document(raw: bytes) -> None:
    for read in (read_values, read_policies):
        with pytest.raises(ArtifactUnusable):
            read(raw, "sha256")


@pytest.mark.parametrize("index", range(len(POLICIES)))
def test_policies_are_those_of_a_tpm(index: int) -> None:
    one = POLICIES[index]
    assert policy_of(one["pcr"], bytes.fromhex(one["value"]), one["bank"]).hex() == one["policy"]


def test_signed_policies_are_read_by_pcr() -> None:
    entries = [{"pcrs": [11], "pkfp": A, "pol": A, "sig": "x"}, {"pcrs": [11], "pol": B}, {"pcrs": [4], "pol": B}]
    raw = json.dumps({"sha256": entries}).encode()
    assert is_signed_policy(raw)
    assert read_policies(raw, "sha256") == {11: {bytes.fromhex(A), bytes.fromhex(B)}, 4: {bytes.fromhex(B)}}
    assert not is_signed_policy(b'{"11": "x"}')


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"pcrs": [11, 12], "pol": A},
        {"pcrs": [True], "pol": A},
        {"pcrs": [11], "pol": "x"},
        {"pcrs": [99], "pol": A},
    ],
    ids=range(5),
)
def test_policies_that_are_not_read(entry: dict[str, object]) -> None:
    with pytest.raises(ArtifactUnusable):
        read_policies(json.dumps({"sha256": [entry]}).encode(), "sha256")


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 30) | st.sampled_from([A, "0x" + A, "sha256", "pcr11", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["measurements", "sha256", "pcr11", "11", "pcr", "hash", "pol"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(document: object) -> None:
    try:
        found = values(document)
    except ArtifactUnusable:
        return
    assert found
    assert all(len(one) == 64 for several in found.values() for one in several)
