"""Launch digests: every vector, the library's own answer and a second one, and firmware that lies."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sevsnpmeasure import guest
from sevsnpmeasure.vmm_types import VMMType

from rvps.compute import snp
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.images import PAGE, SEV_METADATA, SEV_RESET, SEV_SECTIONS, entry, image, sev_firmware

VECTORS = Path(__file__).parents[2] / "vectors/snp/launch-digest"
EXPECTED: list[dict[str, Any]] = json.loads((VECTORS / "expected.json").read_text())
ONES = [each for each in EXPECTED if "launch_digest" in each]
MILAN = snp.VCPU_SIGNATURES["EPYC-Milan"]
NOTHING = hashlib.sha256().digest()


def suffix(name: str) -> snp.Firmware:
    return snp.read_firmware((VECTORS / name).read_bytes())


@pytest.mark.parametrize(
    "case", ONES, ids=lambda each: f"{each['ovmf'][5:8]}-{each['vcpus']}-{each['guest_features']}-{each['vcpu_type']}"
)
def test_every_vector(case: dict[str, Any]) -> None:
    assert hashlib.sha256((VECTORS / case["ovmf"]).read_bytes()).hexdigest() == case["ovmf_sha256"]
    assert snp.VCPU_SIGNATURES[case["vcpu_type"]] == case["vcpu_sig"]
    found = snp.launch_digests(
        suffix(case["ovmf"]),
        [case["vcpus"]],
        case["vcpu_sig"],
        guest_features=case["guest_features"],
        vmm=snp.Vmm(case["vmm"]),
    )
    assert found == [case["launch_digest"]]


def test_the_digest_after_the_firmware_stands_for_its_pages() -> None:
    (case,) = (each for each in EXPECTED if "ovmf_hash" in each)
    firmware = suffix(case["ovmf"])
    assert snp.firmware_digest(firmware) == case["ovmf_hash"]
    whole = snp.launch_digests(firmware, [2], MILAN)
    assert snp.launch_digests(firmware, [2], MILAN, firmware_digest=bytes.fromhex(case["ovmf_hash"])) == whole
    assert snp.launch_digests(firmware, [2], MILAN, firmware_digest=bytes(48)) != whole


def test_several_numbers_of_vcpus_in_the_order_asked() -> None:
    firmware = suffix("ovmf_AmdSev_suffix.bin")
    each = {count: snp.launch_digests(firmware, [count], MILAN)[0] for count in (1, 2, 5)}
    assert snp.launch_digests(firmware, [5, 1, 2], MILAN) == [each[5], each[1], each[2]]
    assert len(set(each.values())) == 3


@pytest.mark.parametrize("vmm", list(snp.Vmm), ids=str)
@pytest.mark.parametrize("with_kernel", [False, True])
def test_the_library_reading_files_itself_agrees(tmp_path: Path, vmm: snp.Vmm, with_kernel: bool) -> None:
    firmware, kernel, initrd = tmp_path / "fd", tmp_path / "k", tmp_path / "i"
    firmware.write_bytes(sev_firmware())
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    line = "root=/dev/vda1 quiet"
    boot = snp.BootFiles(hashlib.sha256(b"kernel").digest(), hashlib.sha256(b"initrd").digest(), line)
    files = (str(kernel), str(initrd), line) if with_kernel else ("", "", "")
    oracle = guest.snp_calc_launch_digest(3, MILAN, str(firmware), *files, 0x21, "", VMMType[vmm.value])
    found = snp.launch_digests(
        snp.read_firmware(firmware.read_bytes()), [3], MILAN, boot=boot if with_kernel else None, guest_features=0x21,
        vmm=vmm,
    )  # fmt: skip
    assert found == [oracle.hex()]


def _second_implementation(firmware: bytes, sections: tuple[tuple[int, int, int], ...], page_of_hashes: bytes) -> bytes:
    """AMD 56860, 8.17.2, up to the vCPUs: PAGE_INFO for each page, chained."""
    digest = bytes(48)

    def add(kind: int, address: int, content: bytes) -> None:
        nonlocal digest
        digest = hashlib.sha384(digest + content + struct.pack("<HBBBBBxQ", 0x70, kind, 0, 0, 0, 0, address)).digest()

    for offset in range(0, len(firmware), PAGE):
        page = hashlib.sha384(firmware[offset : offset + PAGE]).digest()
        add(1, (1 << 32) - len(firmware) + offset, page)
    for address, size, kind in sections:
        if kind == 0x10:
            add(1, address, hashlib.sha384(page_of_hashes).digest())
            continue
        for offset in range(0, size, PAGE):
            add({1: 3, 2: 5, 3: 6, 4: 3}[kind], address + offset, bytes(48))
    return digest


def _page_of_hashes(kernel: bytes, initrd: bytes, command_line: bytes) -> bytes:
    """QEMU target/i386/sev.c, struct SevHashTable: command line, initrd, kernel; padded to 16."""
    guids = ("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", "44baf731-3a2f-4bd7-9af1-41e29169781d",
             "4de79437-abd2-427f-b835-d5b172d2045b")  # fmt: skip
    parts = (command_line + b"\0", initrd, kernel)
    entries = b"".join(
        entry(name, b"")[2:] + struct.pack("<H", 50) + hashlib.sha256(part).digest()
        for name, part in zip(guids, parts, strict=True)
    )
    table = entry("9438d606-4f22-4cc9-b479-a793d411fd21", b"")[2:] + struct.pack("<H", 18 + 150) + entries
    return (bytes(0x400) + table).ljust(PAGE, b"\0")


def test_a_second_implementation_agrees_up_to_the_vcpus() -> None:
    raw = sev_firmware()
    page = _page_of_hashes(b"kernel", b"", b"a b")
    before = _second_implementation(raw, SEV_SECTIONS, page)
    boot = snp.BootFiles(hashlib.sha256(b"kernel").digest(), NOTHING, "a b")
    firmware = snp.read_firmware(raw)
    no_sections = snp.Firmware(raw, (), firmware.reset_address, None)
    assert snp.launch_digests(firmware, [1, 7], MILAN, boot=boot) == snp.launch_digests(
        no_sections, [1, 7], MILAN, firmware_digest=before
    )


@pytest.mark.parametrize(
    "other",
    [
        {"signature": snp.VCPU_SIGNATURES["EPYC-Genoa"]},
        {"guest_features": 0x21},
        {"vmm": snp.Vmm.EC2},
        {"vmm": snp.Vmm.GCE},
        {"boot": snp.BootFiles(NOTHING, NOTHING)},
        {"boot": snp.BootFiles(NOTHING, NOTHING, "x")},
    ],
    ids=("type", "features", "ec2", "gce", "kernel", "command-line"),
)
def test_everything_that_is_measured_changes_the_digest(other: dict[str, Any]) -> None:
    firmware = suffix("ovmf_AmdSev_suffix.bin")
    usual: dict[str, Any] = {"signature": MILAN}
    assert snp.launch_digests(firmware, [1], **(usual | other)) != snp.launch_digests(firmware, [1], **usual)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "too short"),
        (bytes(100), "no table of GUIDs"),
        (sev_firmware()[:5000], "no table of GUIDs"),
        (sev_firmware()[1:], "whole pages"),
        (bytes(64 << 20) + sev_firmware(), "more than 64 MiB"),
        (image([], {}), "no SEV-SNP metadata"),
        (image([entry(SEV_RESET, bytes(4))], {}), "no SEV-SNP metadata"),
        (image([entry(SEV_METADATA, b"\0")], {}), "too short"),
        (image([entry(SEV_RESET, bytes(4)), entry(SEV_RESET, bytes(4))], {}), "twice"),
        (image([b"\0" * 4], {}), "within an entry"),
        (image([struct.pack("<H16s", 17, b"x" * 16)], {}), "does not fit"),
        (image([struct.pack("<H16s", 0xFFFF, b"x" * 16)], {}), "does not fit"),
        (sev_firmware(distance=0xFFFFFFFF), "outside the file"),
        (sev_firmware(distance=3), "outside the file"),
        (sev_firmware(distance=0x500), "another form"),
        (sev_firmware(count=1 << 31), "room"),
        (sev_firmware(count=5), "room"),
        (sev_firmware([(0x1000, 0x1000, 9)]), "unknown kind 9"),
        (sev_firmware([(0x1000, 0, 1)]), "impossible size"),
        (sev_firmware([(0x1000, 0x2000, 2)]), "impossible size"),
        (sev_firmware([(0x1001, 0x1000, 1)]), "whole pages"),
        (sev_firmware([(0x1000, 0x800, 1)]), "whole pages"),
        (sev_firmware([(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)]), "overlap"),
        (sev_firmware([(0xFFFFF000, 0x1000, 1)]), "overlap"),
        (sev_firmware([(0x1000, 0xF0000000, 1)]), "more than 64 MiB"),
    ],
    ids=(
        "empty", "zeros", "cut", "odd", "huge", "no-metadata", "no-sev", "short-entry", "twice", "short-table",
        "small-entry", "large-entry", "far", "near", "not-metadata", "billions", "one-too-many", "kind", "no-size",
        "two-pages", "address", "half-page", "overlap", "over-code", "gigabytes",
    ),
)  # fmt: skip
def test_firmware_that_lies_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        snp.read_firmware(raw)


@pytest.mark.parametrize(
    ("vcpus", "more"),
    [
        ([], {}),
        ([0], {}),
        ([-1], {}),
        ([10**9], {}),
        ([1], {"signature": 1 << 32}),
        ([1], {"guest_features": 0}),
        ([1], {"guest_features": 1 << 64 | 1}),
        ([1], {"firmware_digest": b"short"}),
        ([1], {"boot": snp.BootFiles(NOTHING, NOTHING, "x" * (1 << 20))}),
        ([1], {"boot": snp.BootFiles(NOTHING, NOTHING, "x\0y")}),
    ],
    ids=("none", "zero", "negative", "billion", "signature", "inactive", "wide", "digest", "long-line", "nul"),
)
def test_machines_that_cannot_be(vcpus: list[int], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        snp.launch_digests(suffix("ovmf_AmdSev_suffix.bin"), vcpus, **({"signature": MILAN} | more))


@pytest.mark.parametrize(
    "raw",
    [
        (VECTORS / "ovmf_OvmfX64_suffix.bin").read_bytes(),
        sev_firmware(hashes=0),
        sev_firmware(hashes=0x80FF51),
        sev_firmware(hashes=0x800000),
    ],
    ids=("without", "no-address", "over-the-end", "other-page"),
)
def test_a_kernel_needs_firmware_with_a_page_for_its_hashes(raw: bytes) -> None:
    with pytest.raises(ArtifactUnusable, match="kernel"):
        snp.launch_digests(snp.read_firmware(raw), [1], MILAN, boot=snp.BootFiles(NOTHING, NOTHING))


def test_a_second_vcpu_needs_a_reset_address() -> None:
    firmware = snp.read_firmware(sev_firmware(reset=0))
    assert len(snp.launch_digests(firmware, [1], MILAN)) == 1
    with pytest.raises(ArtifactUnusable, match="reset address"):
        snp.launch_digests(firmware, [2], MILAN)


def test_signatures_of_families_and_models() -> None:
    assert snp.vcpu_signature(25, 1, 1) == MILAN
    for wrong in ((271, 0, 0), (0, 256, 0), (0, 0, 16), (-1, 0, 0)):
        with pytest.raises(ValueError):
            snp.vcpu_signature(*wrong)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    """Any change of firmware gives firmware or a refusal, and quickly: sums are bounded before anything is hashed."""
    raw = bytearray(sev_firmware())
    tail = len(raw) - 0x400
    for _ in range(data.draw(st.integers(1, 6))):
        at = tail + data.draw(st.integers(0, 0x3FF))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        firmware = snp.read_firmware(bytes(raw[data.draw(st.sampled_from((0, 0, 0, PAGE, 1))) :]))
        snp.launch_digests(firmware, [1], MILAN)
    except ArtifactUnusable:
        return
    assert sum(size for _, size, _ in firmware.sections) <= 64 << 20
