"""Evidence and logs of real machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import tpm
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import BindingMismatch, EventLogMismatch
from kbs.protocol.tee import Tee

VECTORS = Path(__file__).parents[4] / "vectors/tpm"
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / "tpm_evidence.json").read_text())
    return found


def verify(document: dict[str, Any], binding: Binding) -> Any:
    verifier = tpm.build(VerifierOptions(anchors={"trusted_aks": [document["ak_public"]]}))
    (found,) = verifier.verify(Evidence(Tee.TPM, document), Endorsements(), binding, AT)
    return found.claims


def test_signature_and_pcrs_of_a_guest_of_the_field(document: dict[str, Any]) -> None:
    claims = verify(document, Binding(None))
    assert claims["ak_public"] == document["ak_public"]
    assert [claims[f"pcr{index:02}"] for index in range(24)] == document["tpm_quote"]["pcrs"]
    assert claims["init_data"] == claims["pcr08"] == "00" * 32
    assert claims["report_data"].startswith("a04182b506878d4f")
    assert (claims["binding"], claims["revocation"]) == ("not_checked", "not_applicable")
    assert claims["clock"] == {"milliseconds": 1913548331, "reset_count": 2, "restart_count": 0, "safe": True}
    assert claims["boot_measured"] is False  # a TPM in software without firmware: PCR 0 to 11 are zero


def test_its_nonce_is_that_of_older_guests(document: dict[str, Any]) -> None:
    """64 octets, the report data zero padded: nothing that today's guests and brokers could mean."""
    nonce = bytes.fromhex(
        "a04182b506878d4f29b91ee606a71a0d3361ccf1b22db20c98adcaa537bea393ef0e41a18b3569ab678f1497fbc5c120"
    )
    for report_data in (nonce, nonce.ljust(64, b"\0"), nonce[:32]):
        with pytest.raises(BindingMismatch):
            verify(document, Binding(report_data))


def test_a_log_of_the_field_under_a_quote() -> None:
    """Firmware log of an Ubuntu machine on Google Cloud, its published PCRs, a quote over them in software."""
    attester = SoftwareTpm(boot=False)
    published = json.loads((VECTORS / "eventlog/replay.json").read_text())["ubuntu-1804-amd-sev.bin"]
    for index, value in published["replay"]["sha256"].items():
        attester.bank.values[int(index)] = bytes.fromhex(value)
    log = (VECTORS / "eventlog/ubuntu-1804-amd-sev.bin").read_bytes()
    verifier = tpm.build(VerifierOptions(anchors=attester.anchors))
    body = attester.evidence(bytes(48), log=log)
    (found,) = verifier.verify(Evidence(Tee.TPM, body), Endorsements(), Binding(bytes(48)), AT)
    assert found.claims["boot_measured"] is True
    assert len(found.claims["uefi_event_logs"]) > 20
    assert found.claims["event_log"]["secure_boot"] is False
    attester.bank.extend(4, bytes(32))
    body = attester.evidence(bytes(48), log=log)
    with pytest.raises(EventLogMismatch):
        verifier.verify(Evidence(Tee.TPM, body), Endorsements(), Binding(bytes(48)), AT)
