"""Software event logs: their bytes, checked against published ones, and the registers that go with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from kbs.client.attesters.event_log import ACTION, NO_ACTION, SoftwareEventLog, confidential_boot, digest, measured_boot

AAEL = json.loads(Path("tests/vectors/eventlog/aael-vectors.json").read_text())


def test_events_of_the_attestation_agent_are_the_published_ones() -> None:
    for bank, register, name in (("sha384", 4, "tdx_sha384_ccmr4"), ("sha256", 17, "vtpm_sha256_pcr17")):
        log = SoftwareEventLog((bank,))
        for event in AAEL["events"]:
            log.runtime(register, *event["text"].split(" ", 2))
            assert log.entry(log.events[-1]).hex() == event[f"tcg2_entry_{name}_hex"]
            assert digest(bank, log.events[-1].data).hex() == event["digests"][bank]
        known = AAEL["replay_from_zero_in_order"]
        assert log.registers()[register].hex() == known["rtmr3_sha384_hex" if register == 4 else "pcr17_sha256_hex"]


def test_the_header_is_that_of_the_attestation_agent() -> None:
    assert len(SoftwareEventLog(("sha384", "sm3")).to_bytes(b"")) == 69


def test_registers() -> None:
    log = SoftwareEventLog(("sha1", "sha256"))
    log.measure(2, ACTION, b"logged", b"measured")
    log.measure(2, NO_ACTION, b"x")
    assert log.registers("sha256") == {2: digest("sha256", bytes(32) + digest("sha256", b"measured"))}
    assert log.registers(indexes=[1])[1] == bytes(20)
    assert log.rtmrs(2)[0] == bytes(20)


def test_no_action_has_no_digest() -> None:
    log = SoftwareEventLog(("sha256",))
    log.measure(0, NO_ACTION, b"x")
    assert log.entry(log.events[0])[14:46] == bytes(32)


def test_both_formats() -> None:
    assert measured_boot(("sha1",), crypto_agile=False).to_bytes(b"")[:8] == struct.pack("<II", 0, 8)
    assert measured_boot().to_bytes()[32:47] == b"Spec ID Event03"
    assert measured_boot().to_bytes(header=False)[:8] == struct.pack("<II", 0, 8)


def test_boots_differ_where_they_should() -> None:
    """Secure boot shows in register 1, kernel in 2, command line and initial file system in 3."""
    base = confidential_boot().rtmrs()

    def differing(log: SoftwareEventLog) -> list[int]:
        return [place for place, value in enumerate(log.rtmrs()) if value != base[place]]

    assert differing(confidential_boot(secure_boot=False)) == [0]
    assert differing(confidential_boot(kernel=b"other")) == [1]
    assert differing(confidential_boot(command_line="other")) == [2]
    assert differing(confidential_boot(initrd=b"other")) == [2]
    assert base[3] == bytes(48)
    assert measured_boot(kernel=b"x").registers()[4] != measured_boot().registers()[4]
    assert measured_boot(command_line="x").registers()[12] != measured_boot().registers()[12]
