"""Registers of a TD: the sequence of events against a real quote, and what a log lends."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rvps.compute import ccel, pe, tdvf, tdx
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.images import image_load, kernel, log_entry, log_header, tdx_firmware

LOGS = Path(__file__).parents[2] / "vectors/eventlog"
LIVE = ccel.read(gzip.decompress((LOGS / "live_b0c06f.ccel.gz").read_bytes()))
QUOTED = json.loads((LOGS / "live_b0c06f.rtmrs.json").read_text())


def logged(name: str) -> bytes:
    """The digest that the live log has for an event of this name."""
    (found,) = (event.digest for event in tdx.along_log(LIVE, tdx.Digests()) if event.name == name)
    return found


REAL = tdx.Digests(kernel=logged("kernel"), load_options=logged("command line"), initrd=logged("initrd"))


def sha384(raw: bytes) -> bytes:
    return hashlib.sha384(raw).digest()


def test_the_sequence_of_direct_boot_leads_to_the_registers_of_a_real_quote() -> None:
    """Only kernel, command line and initrd come from outside; everything between them is computed."""
    events = tdx.direct_boot(REAL)
    assert tdx.registers(events) == {"rtmr_1": QUOTED[1], "rtmr_2": QUOTED[2]}
    assert tdx.Origin.LENT not in {event.origin for event in events}


def test_along_the_real_log_all_registers_are_those_of_the_quote() -> None:
    events = tdx.along_log(LIVE, REAL)
    assert tdx.registers(events) == {"rtmr_1": QUOTED[1], "rtmr_2": QUOTED[2]}
    whole = replace(REAL, hand_off_block=logged("hand-off block"))
    assert tdx.registers(tdx.along_log(LIVE, whole)) == {f"rtmr_{n}": QUOTED[n] for n in (0, 1, 2)}


@pytest.mark.parametrize(("log", "memory"), [("CCEL_data_ovmf", 2 << 30), ("CCEL_data_grub", 10 << 30)])
def test_a_computed_hand_off_block_leads_to_rtmr_0_of_a_real_machine(log: str, memory: int) -> None:
    known = json.loads((LOGS / "replay.json").read_text())
    block = tdvf.hand_off_block(tdvf.read(tdx_firmware()), memory)
    assert block is not None
    events = ccel.read(gzip.decompress((LOGS / f"{log}.gz").read_bytes()))
    found = tdx.registers(tdx.along_log(events, tdx.Digests(hand_off_block=sha384(block))))
    assert list(found) == ["rtmr_0"]
    assert found["rtmr_0"] in json.dumps(known)
    assert found["rtmr_0"] == ccel.replay(events)[1].hex()


def test_registers_of_which_nothing_was_computed_are_left_out() -> None:
    assert tdx.registers(tdx.along_log(LIVE, tdx.Digests())) == {}
    assert list(tdx.registers(tdx.along_log(LIVE, tdx.Digests(kernel=bytes(48))))) == ["rtmr_1"]


@pytest.mark.parametrize("member", ["kernel", "load_options", "initrd", "hand_off_block", "configuration_volume"])
def test_each_part_changes_its_register_alone(member: str) -> None:
    base = tdx.Digests(bytes(48), bytes(48), bytes(48), bytes(48), bytes(48))
    changes: dict[str, Any] = {member: b"\1" * 48}
    usual = tdx.registers(tdx.along_log(LIVE, base))
    other = tdx.registers(tdx.along_log(LIVE, replace(base, **changes)))
    changed = {name for name in usual if usual[name] != other[name]}
    expected = {"kernel": "rtmr_1", "load_options": "rtmr_2", "initrd": "rtmr_2"}.get(member, "rtmr_0")
    assert changed == {expected}


def test_acpi_data_in_the_order_of_the_log() -> None:
    three = tuple(bytes([number]) * 48 for number in range(3))
    events = tdx.along_log(LIVE, tdx.Digests(acpi=three))
    assert tuple(event.digest for event in events if event.name == "ACPI data") == three
    for wrong in (three[:2], (*three, three[0])):
        with pytest.raises(ArtifactUnusable, match="ACPI data"):
            tdx.along_log(LIVE, tdx.Digests(acpi=wrong))


def test_what_the_log_has_no_event_of_is_refused() -> None:
    log = ccel.read(log_header() + log_entry(1, 4, bytes(4)))
    for name in ("kernel", "load_options", "initrd", "hand_off_block", "configuration_volume"):
        given: dict[str, Any] = {name: bytes(48)}
        with pytest.raises(ArtifactUnusable, match="no event"):
            tdx.along_log(log, tdx.Digests(**given))


def test_a_second_image_called_kernel_is_refused() -> None:
    entry = log_entry(2, 0x80000003, image_load())
    with pytest.raises(ArtifactUnusable, match="more events"):
        tdx.along_log(ccel.read(log_header() + entry + entry), tdx.Digests(kernel=bytes(48)))


@pytest.mark.parametrize(
    "data",
    [image_load("kernel2"), image_load("grubx64.efi"), b"", b"x" * 33, bytes(40), image_load()[:-10]],
    ids=("longer", "grub", "empty", "noise", "endless", "cut"),
)
def test_other_images_are_not_the_kernel(data: bytes) -> None:
    log = ccel.read(log_header() + log_entry(2, 0x80000003, data))
    assert [event.name for event in tdx.along_log(log, tdx.Digests())] == ["EV_EFI_BOOT_SERVICES_APPLICATION"]


def test_a_log_that_gives_a_fixed_text_another_digest_is_refused() -> None:
    log = ccel.read(log_header() + log_entry(2, 4, bytes(4), b"\1" * 48))
    with pytest.raises(ArtifactUnusable, match="contradicts"):
        tdx.along_log(log, tdx.Digests())


def test_events_of_the_runtime_are_not_reference_values() -> None:
    log = ccel.read(log_header() + log_entry(2, 4, bytes(4)) + log_entry(4, 6, b"x"))
    assert {event.register for event in tdx.along_log(log, tdx.Digests())} == {2}


def test_unknown_events_have_a_name_too() -> None:
    variable = bytes(16) + (2).to_bytes(8, "little") + bytes(8) + "PK".encode("utf-16-le")
    log = ccel.read(log_header() + log_entry(1, 0x99, b"x") + log_entry(1, 0x80000001, variable))
    assert [event.name for event in tdx.along_log(log, tdx.Digests())] == [
        "event of type 0x99",
        "variable PK",
    ]


def test_load_options() -> None:
    assert tdx.load_options("ab", has_initrd=False) == b"a\0b\0\0\0"
    assert tdx.load_options("ab", has_initrd=False, terminated=False) == b"a\0b\0"
    assert tdx.load_options("a", has_initrd=True) == "a initrd=initrd\0".encode("utf-16-le")
    assert tdx.load_options("a", has_initrd=True, initrd_argument=False) == b"a\0\0\0"
    assert tdx.load_options("", has_initrd=True) == " initrd=initrd\0".encode("utf-16-le")
    assert tdx.load_options("", has_initrd=False) is None


@pytest.mark.parametrize(
    "text", ["x" * 65537, "ä", "a\0b", "a\nb", "\ud800"], ids=("long", "umlaut", "nul", "line", "half")
)
def test_command_lines_that_firmware_and_kernel_read_differently(text: str) -> None:
    with pytest.raises(ValueError):
        tdx.load_options(text, has_initrd=False)


def test_a_kernel_is_measured_without_its_signature_fields() -> None:
    """Authenticode, second implementation: everything but checksum and the entry of the certificate table."""
    raw = bytearray(kernel())
    file = io.BytesIO(bytes(raw))
    found = pe.authenticode(file, pe.read_image(file), ("sha384",))["sha384"]
    checksum, entry = 0x58 + 64, 0x58 + 112 + 4 * 8
    assert found == sha384(bytes(raw[:checksum] + raw[checksum + 4 : entry] + raw[entry + 8 :]))
