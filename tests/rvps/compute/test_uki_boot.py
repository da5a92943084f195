"""PCR 4, 9, 11 and 12 of unified kernel images: against real boots, systemd-measure and a TPM."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.event_log.algorithms import SHA256, SHA384
from kbs.attestation.event_log.records import EV_NO_ACTION, parse_crypto_agile
from rvps.compute import cpio, pcr, pe, uki, uki_boot
from rvps.errors import ArtifactUnusable
from tests.fakes.swtpm import Swtpm
from tests.rvps.compute.uki_images import kernel
from tests.rvps.compute.uki_images import pe as build
from tests.rvps.compute.uki_images import uki as build_uki
from tests.swtpm_binary import new_tpm, swtpm

__all__ = ["new_tpm", "swtpm"]

VECTORS = Path(__file__).parents[2] / "vectors/pcr"
BOOTS: dict[str, Any] = json.loads((VECTORS / "boots.json").read_text())
FILES = {name: base64.b64decode(content) for name, content in BOOTS["files"].items()}
MEASURED: list[dict[str, Any]] = json.loads((VECTORS / "systemd-measure.json").read_text())
ALGORITHMS = {"sha256": SHA256, "sha384": SHA384}
CASES = [(version, bank) for version in BOOTS["boots"] for bank in pcr.BANKS]
LINE = FILES["cmdline"].decode()
KERNEL = kernel()
CONTENT = [(b".linux", KERNEL), (b".osrel", b"ID=x\n"), (b".cmdline", b" a=1\tquiet \n"), (b".initrd", b"i" * 5001)]


def logged(version: str, bank: str) -> list[tuple[int, bytes]]:
    log = gzip.decompress((VECTORS / f"boot-{version}.log.gz").read_bytes())
    events = parse_crypto_agile(log, ALGORITHMS[bank])
    return [(register, digest) for register, kind, digest, _ in events if kind != EV_NO_ACTION]


def companions(version: str, addons: list[list[str]]) -> uki_boot.Companions:
    """What stood beside the image of each boot."""
    lines = () if version == "257" else (LINE, LINE)  # older boot loaders hand the image its own command line
    texts = {"image two.addon.efi": "  addon.two=2 ", "image one.addon.efi": "addon.one=1 quiet"}
    if version == "254":
        return uki_boot.Companions(lines)
    return uki_boot.Companions(
        lines,
        tuple((name, bytes.fromhex(digest), texts[name]) for name, digest in addons),
        {"a.cred": FILES["a.cred"]},
        {"g.cred": FILES["g.cred"]},
        {"c.confext.raw": bytes(5000)} if version == "257" else {},
    )


@pytest.mark.parametrize(("version", "bank"), CASES)
def test_a_real_boot(version: str, bank: str) -> None:
    """Event by event what firmware, boot loader and stub measured, and what the TPM held in the end."""
    boot, events = BOOTS["boots"][version], logged(version, bank)
    images = [(name, bytes.fromhex(digest)) for name, digest in boot["images"][bank]]
    started = list(pcr.boot_applications(images, bank))
    assert [event.digest for event in started] == [digest for register, digest in events if register == 4]
    beside = companions(version, [one for one in boot["images"][bank] if "addon" in one[0]])
    parameters = list(uki_boot.parameters(beside, bank))
    assert [event.digest for event in parameters] == [digest for register, digest in events if register == 12]
    added = " ".join(["addon.two=2", "addon.one=1 quiet"] if version == "257" else [])
    handed = [digest for register, digest in events if register == 9]
    inputs = list(pcr.kernel_stub(f"{LINE} {added}".strip(), handed[1], bank))
    assert [event.digest for event in inputs] == handed
    measured = [digest for register, digest in events if register == 11]
    sections = [pcr.Event(11, digest, "") for digest in measured]
    values = pcr.replay([*started, *parameters, *inputs, *sections], bank)
    assert {str(number): value.hex() for number, value in values.items()} == boot["pcrs"][bank]


@pytest.mark.parametrize(("version", "bank"), CASES)
def test_the_sections_that_a_real_stub_measured(version: str, bank: str) -> None:
    digests = BOOTS["boots"][version]["sections"][bank]
    known = [name.decode() for name, since in uki.SECTIONS.items() if since <= int(version)]
    assert list(digests) == [name for name in known if name in digests]
    expected = []
    for name, digest in digests.items():
        expected += [hashlib.new(bank, name.encode() + b"\0").digest(), bytes.fromhex(digest)]
        if name in (".osrel", ".cmdline", ".uname", ".pcrpkey"):
            assert hashlib.new(bank, FILES[name[1:]]).hexdigest() == digest
    assert expected == [digest for register, digest in logged(version, bank) if register == 11]


@pytest.mark.parametrize("index", range(len(MEASURED)))
def test_systemd_measure_says_the_same(index: int) -> None:
    """Whatever the order of the sections in the file."""
    contents = [(name.encode(), text.encode() * times) for name, (text, times) in MEASURED[index]["contents"].items()]
    for ordered in (contents, contents[::-1]):
        image = uki_boot.open_image("x", io.BytesIO(build_uki(ordered, 252)))
        for bank, entries in MEASURED[index]["output"].items():
            sections = uki_boot.image_pcr(image, bank)
            for entry in entries:
                events = [*sections, *pcr.phase_events(entry["phase"], bank)]
                assert pcr.replay(events, bank)[11].hex() == entry["hash"]


def test_a_section_unknown_to_its_stub_is_not_measured() -> None:
    raw = build_uki([*CONTENT, (b".uname", b"6.1"), (b".hwids", b"h")], 252)
    assert b".uname" not in uki_boot.open_image("x", io.BytesIO(raw)).sections
    newer = uki_boot.open_image("x", io.BytesIO(build_uki([*CONTENT, (b".uname", b"6.1"), (b".hwids", b"h")], 257)))
    assert list(newer.sections) == [b".linux", b".osrel", b".cmdline", b".initrd", b".uname", b".hwids"]


def test_signatures_of_values_are_not_measured() -> None:
    plain, signed = build_uki(CONTENT), build_uki([*CONTENT, (b".pcrsig", b"{}")])
    events = [uki_boot.image_pcr(uki_boot.open_image("x", io.BytesIO(raw)), "sha256") for raw in (plain, signed)]
    assert events[0] == events[1]


def test_profiles() -> None:
    parts = [(b".profile", b"ID=main"), (b".profile", b"ID=debug"), (b".cmdline", b"debug")]
    raw = build_uki([*CONTENT, *parts])
    first, second = (uki_boot.open_image("x", io.BytesIO(raw), number) for number in (0, 1))
    assert uki.text_of(first.file, first.sections[b".cmdline"]) == " a=1\tquiet \n"
    assert uki.text_of(second.file, second.sections[b".cmdline"]) == "debug"
    assert uki.text_of(second.file, second.sections[b".profile"]) == "ID=debug"
    with pytest.raises(ArtifactUnusable, match="no profile 2"):
        uki_boot.open_image("x", io.BytesIO(raw), 2)


def test_what_the_kernel_is_handed() -> None:
    image = uki_boot.open_image("x", io.BytesIO(build_uki([*CONTENT, (b".ucode", b"u" * 6)])))
    beside = uki_boot.Companions(addons=(("a", bytes(32), " b=2 "),), credentials={"a.cred": b"c"})
    line, initrd = uki_boot.kernel_inputs(image, beside, "sha256")
    assert line.digest == hashlib.sha256("a=1 quiet b=2\0".encode("utf-16-le")).digest()
    meta = cpio.Target("", ".extra", "", 0o555, 0o444)
    parts = [b"u" * 6 + bytes(2), b"i" * 5001 + bytes(3), cpio.archive({"a.cred": b"c"}, cpio.CREDENTIALS)]
    parts.append(cpio.archive({"os-release": b"ID=x\n"}, meta))
    assert initrd.digest == hashlib.sha256(b"".join(parts)).digest()


def test_the_kernel_inside_is_the_last_application() -> None:
    image = uki_boot.open_image("x", io.BytesIO(build_uki(CONTENT)))
    beside = uki_boot.Companions(addons=(("addon", b"a" * 32, "b"),))
    events = uki_boot.applications(image, [("loader", b"l" * 32)], beside, "sha256")
    inner = io.BytesIO(KERNEL)
    assert events[-1].digest == pe.authenticode(inner, pe.read_image(inner))["sha256"]
    assert [event.what for event in events[2:]] == ["image loader", "image x", "image addon", "image kernel of x"]


def test_nothing_from_outside_leaves_pcr_12_alone() -> None:
    assert list(uki_boot.parameters(uki_boot.Companions(), "sha256")) == []


def test_an_addon() -> None:
    raw = build([(b".text", b"x"), (b".cmdline", b" more=1 \0\0")])
    name, digest, line = uki_boot.addon("x.addon.efi", io.BytesIO(raw), "sha384")
    assert (name, len(digest), line) == ("x.addon.efi", 48, " more=1 ")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (build([(b".linux", KERNEL)]), "does not say that it is one of systemd"),
        (build_uki(CONTENT, 251), "252 is the first"),
        (build_uki(CONTENT[1:]), "no section .linux"),
        (build_uki([*CONTENT, (b".initrd", b"2")]), "there twice"),
        (build_uki([*CONTENT, (b".dtbauto", b"2")]), "the machine chooses"),
        (build_uki([*CONTENT, (b".efifw", b"2")], 258), "the machine chooses"),
    ],
    ids=["no stub", "old stub", "no kernel", "twice", "dtbauto", "efifw"],
)
def test_images_without_one_value(raw: bytes, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        uki_boot.open_image("x", io.BytesIO(raw))


def test_later_stubs_have_pcr_11_and_12_only() -> None:
    image = uki_boot.open_image("x", io.BytesIO(build_uki(CONTENT, 259)))
    assert uki_boot.image_pcr(image, "sha256")
    with pytest.raises(ArtifactUnusable, match="PCR 4: not known for systemd-stub 259"):
        uki_boot.applications(image, [], uki_boot.Companions(), "sha256")
    with pytest.raises(ArtifactUnusable, match="PCR 9: not known for systemd-stub 259"):
        uki_boot.kernel_inputs(image, uki_boot.Companions(), "sha256")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no files"),
        ({".hidden.cred": b""}, "passes over"),
        ({"ä.cred": b""}, "passes over"),
        ({"a" * 251 + ".cred": b""}, "passes over"),
        ({"a/b.cred": b""}, "passes over"),
        ({"a.txt": b""}, "does not end in"),
    ],
    ids=["none", "hidden", "not ASCII", "long", "folder", "suffix"],
)
def test_files_that_the_stub_passes_over(files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        cpio.archive(files, cpio.CREDENTIALS)


def test_a_real_tpm_comes_to_the_same_values(new_tpm: Callable[[], Swtpm]) -> None:
    image = uki_boot.open_image("x", io.BytesIO(build_uki(CONTENT)))
    beside = uki_boot.Companions(("quiet",), credentials={"a.cred": b"c"})
    events = uki_boot.image_pcr(image, "sha256") + uki_boot.applications(image, [], beside, "sha256")
    events += [*uki_boot.parameters(beside, "sha256"), *pcr.phase_events(":".join(pcr.PHASES), "sha256")]
    events += uki_boot.kernel_inputs(image, beside, "sha256")
    tpm = new_tpm()
    for event in events:
        tpm.extend(event.pcr, event.digest)
    held = tpm.read_pcrs()
    assert {number: held[number] for number in (4, 9, 11, 12)} == pcr.replay(events, "sha256")
