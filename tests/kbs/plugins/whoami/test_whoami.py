"""The plugin by itself: what it answers, and that it makes nothing up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import ConfigInvalid, ResourceNotFound, ServerFault
from kbs.plugins.model import Access, Guest, PluginContext, PluginRequest
from kbs.plugins.whoami import WhoamiPlugin, appraisal_of, build
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.sealed import SealedStore, SealingKeys
from tests.fakes.broker import TEE_KEY, StoppedClock

EXPIRES = datetime(2026, 6, 15, 12, 5, tzinfo=UTC)
CPU = {
    "ear.status": "affirming",
    "ear.trustworthiness-vector": {"hardware": 2},
    "ear.appraisal-policy-id": "default",
    "ear.veraison.annotated-evidence": {"snp": {"vmpl": 0}, "report_data": "00"},
    "extension": "anything a policy wrote",
}
GPU = {"ear.status": "warning", "ear.veraison.annotated-evidence": {"nvidia": {}}}


def guest_with(claims: Any) -> Guest:
    return Guest(claims, json.dumps(claims).encode(), TEE_KEY.public, EXPIRES, "id")


def asked(*segments: str, claims: Any = None) -> bytes:
    guest = guest_with({"submods": {"cpu0": CPU}} if claims is None else claims)
    return WhoamiPlugin().handle(PluginRequest("GET", segments, {}, guest=guest)).payload.reveal()


def test_an_appraisal() -> None:
    assert appraisal_of(guest_with({"iss": "broker", "submods": {"cpu0": CPU, "gpu0": GPU}})) == {
        "attestation": "id",
        "issuer": "broker",
        "expires": "2026-06-15T12:05:00+00:00",
        "status": "warning",
        "submods": {
            "cpu0": {
                "status": "affirming",
                "trust_vector": {"hardware": 2},
                "tee": "snp",
                "policy": "default",
                "claims": {"snp": {"vmpl": 0}, "report_data": "00"},
            },
            "gpu0": {
                "status": "warning",
                "trust_vector": None,
                "tee": "nvidia",
                "policy": None,
                "claims": {"nvidia": {}},
            },
        },
    }


@pytest.mark.parametrize("path", ["", "status", "guest/status/self"])
def test_paths_of_the_appraisal(path: str) -> None:
    assert json.loads(asked(*path.split("/")))["submods"]["cpu0"]["status"] == "affirming"
    assert json.loads(asked())["attestation"] == "id"


@pytest.mark.parametrize("path", ["empty", "guest/empty/self"])
def test_paths_of_nothing(path: str) -> None:
    assert asked(*path.split("/")) == b""


@pytest.mark.parametrize(
    "path", ["Status", "status/", "empty/x", "guest/status", "guest/status/other", "/", "../status"]
)
def test_other_paths(path: str) -> None:
    with pytest.raises(ResourceNotFound):
        asked(*path.split("/"))


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        (["affirming"], "affirming"), (["none", "affirming"], "none"), (["affirming", "contraindicated", "warning"],
        "contraindicated"), ([], None), (["affirming", "Affirming"], None), ([None], None), ([["affirming"]], None),
    ],
    ids=range(7),
)  # fmt: skip
def test_the_worst_counts_and_an_unknown_one_is_not_taken_for_good(statuses: list[Any], worst: str | None) -> None:
    submods = {f"cpu{number}": {"ear.status": status} for number, status in enumerate(statuses)}
    assert appraisal_of(guest_with({"submods": submods}))["status"] == worst


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(0, 9),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(st.sampled_from(["submods", "cpu0", "ear.status", "x"]), each, max_size=4)
        ),
    )
)
def test_tokens_of_foreign_issuers_of_whatever_form(claims: Any) -> None:
    found = json.loads(asked("status", claims=claims if isinstance(claims, dict) else {"submods": claims}))
    assert set(found) == {"attestation", "issuer", "expires", "status", "submods"}


def test_guards_and_faults(tmp_path: Path) -> None:
    guards = WhoamiPlugin().guards()
    assert {method: guard.access for method, guard in guards.items()} == {"GET": Access.TOKEN}
    with pytest.raises(ServerFault):
        WhoamiPlugin().handle(PluginRequest("GET", ("empty",), {}))
    clock = StoppedClock()
    store = SealedStore(MemoryStore(), SealingKeys([Secret(bytes(32))]))
    assert build(PluginContext(store, clock, bytes, tmp_path, {})).blocks is False
    with pytest.raises(ConfigInvalid, match=r"plugins\.options\.whoami"):
        build(PluginContext(store, clock, bytes, tmp_path, {"x": 1}))
