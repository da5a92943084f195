"""Guests whose event logs are larger than a token: policies see all of it, the token leaves some out and says so."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.client.attesters.csv import SoftwareCsv
from kbs.client.attesters.event_log import CRTM_VERSION, SoftwareEventLog, confidential_boot
from kbs.client.attesters.test_root import TestRoot
from tests.fakes.broker import BrokerUnderTest, Edge, policy_upload

LIMIT = 96 << 10  # octets of a token
SECRET = b"a secret"
ROOT = TestRoot()
POLICY = """package policy
trust_claims := {"executables": 3, "hardware": 2} if {
	count(input.csv.uefi_event_logs) == %d
	count([event | some event in input.csv.uefi_event_logs; event.event != ""]) == %d
	count(input.csv.runtime_events) == %d
} else := {"executables": 33, "hardware": 97}
"""
RESOURCES = """package policy
default allow := false
allow if input["submods"]["cpu0"]["ear.status"] == "affirming"
"""


def boot(runtime_events: int, blobs: int) -> SoftwareEventLog:
    log = confidential_boot("sm3")
    for number in range(runtime_events):
        log.runtime(4, "example.org", "PullImage", f"registry.example.org/image:{number}")
    for _ in range(blobs):
        log.measure(3, CRTM_VERSION, bytes(1000))
    return log


@pytest.fixture
def broker(tmp_path: Path, edge: Edge, shared_modules: None) -> Iterator[BrokerUnderTest]:
    anchors = tmp_path / "anchors.json"
    anchors.write_text(json.dumps(SoftwareCsv(ROOT).anchors))
    made = BrokerUnderTest(
        tmp_path / "data",
        edge,
        settings={"KBS__ATTESTATION__TEES": '["csv"]', "KBS__ATTESTATION__ANCHORS": f'{{csv = "{anchors}"}}'},
    )
    made.put_secret(value=SECRET)
    yield made
    made.close()


def evidence_of(token: str) -> Any:
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims["submods"]["cpu0"]["ear.status"], claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]


@pytest.mark.opa
@pytest.mark.parametrize(("extra", "blobs"), [(0, 0), (0, 100), (2000, 0)])
def test_guest_with_a_long_log_gets_its_secret(broker: BrokerUnderTest, extra: int, blobs: int) -> None:
    log = boot(extra, blobs)
    entries = len(log.events)
    for target, text in (
        ("attestation-policy", policy_upload((POLICY % (entries, entries, extra)).encode(), policy_id="default_cpu")),
        ("resource-policy", policy_upload(RESOURCES.encode())),
    ):
        answer = broker.admin("POST", target, text)
        assert answer.status == 200, answer.body
    guest = broker.guest(tee="csv", attester=SoftwareCsv(ROOT, log=log, brings_chain=True))
    token = guest.attest()
    status, evidence = evidence_of(token)
    assert len(token) <= LIMIT
    assert status == "affirming"
    assert evidence["csv"]["event_log"]["registers"][3]["runtime_events"] == extra
    if not extra and not blobs:
        assert "omitted" not in evidence
        assert len(evidence["csv"]["uefi_event_logs"]) == entries
    elif blobs:
        assert evidence["omitted"] == {"csv.uefi_event_logs[].event": entries}
        assert len(evidence["csv"]["uefi_event_logs"]) == entries
    else:
        assert evidence["omitted"].keys() >= {"csv.uefi_event_logs[].event", "csv.uefi_event_logs"}
        assert evidence["omitted"]["csv.uefi_event_logs"] == entries
        assert "uefi_event_logs" not in evidence["csv"]
    assert guest.get_resource("default/key/1") == SECRET
