"""IMA lists: published entries, every template in both forms, violations, what the quote does not cover."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.event_log import ima
from kbs.attestation.event_log.ima_records import parse
from kbs.attestation.event_log.model import MAX_EVENTS
from kbs.errors import EventLogMalformed, EventLogMismatch, EvidenceRejected

PUBLISHED = {  # entries of real machines, from the documentation of IMA and from bug reports: template data by line
    "10 7971593a7ad22a7cce5b234e4bc5d71b04696af4 ima b5a166c10d153b7cc3e5b4f1eab1f71672b7c524 boot_aggregate": None,
    "10 2c7020ad8cab6b7419e4973171cb704bdbf52f77 ima e09e048c48301268ff38645f4c006137e42951d0 /init": None,
    f"10 0adefe762c149c7cec19da62f0da1297fcfbffff ima-ng sha256:{'0' * 64} boot_aggregate": None,
    f"10 4e5d73ebadfd8f850cb93ce4de755ba148a9a7d5 ima-ng sha256:{'0' * 64} boot_aggregate_late": None,
    "10 8aa71d146be2b1a0a53cb603be22928f1b74ae17 ima-sig "
    "sha256:94326940137a8f59b369d1aa058bccce58cbda37e68be0f138ea45c2cb743a46 boot_aggregate": (
        "cc1078d3b981e8ef52b3d4d9cffc2f27648d05947d4caa829e47f83fb8f8ed00"
    ),
    "10 0c8a706a75a5689c1e168f0a573a3cbec33061b5 ima-sig "
    "sha256:e4cb9f5709c88376b5fc3743cd88e76b9aae8f3d992d845678de5215edb31216 boot_aggregate ": None,
    "10 49ab61dd97ea2f759edcb6c6a3387ac67f0aa576 ima-buf "
    "sha256:0c907aab3261194f16b0c2a422a82f145bc9b9ecb8fdb633fa43e3e5379f0af2 kernel_version 372e312e302d7263312b": None,
}


@pytest.mark.parametrize(("line", "sha256"), PUBLISHED.items())
def test_published_entries(line: str, sha256: str | None) -> None:
    (entry,) = parse(line.encode())
    assert hashlib.sha1(entry.hashed).digest() == entry.digest
    assert sha256 is None or hashlib.sha256(entry.hashed).hexdigest() == sha256


class SoftwareIma:
    """A kernel that measures: lists in both forms, and the PCR."""

    def __init__(self, bank: str = "sha256", register: int = 10) -> None:
        self.bank = bank
        self.register = register
        self.text = self.binary = b""
        self.pcr = bytes(hashlib.new(bank).digest_size)

    def add(
        self, template: str, digest: bytes, path: bytes, *more: bytes, shown: str = "", violation: bool = False
    ) -> None:
        """`digest`: the field as stored. `shown`: as text, if that is not its hexadecimal form."""
        if template == "ima":
            hashed = digest + path.ljust(256, b"\0")
            stored = digest + struct.pack("<I", len(path)) + path
        else:
            hashed = b"".join(struct.pack("<I", len(each)) + each for each in (digest, path + b"\0", *more))
            stored = struct.pack("<I", len(hashed)) + hashed
        sha1 = bytes(20) if violation else hashlib.sha1(hashed).digest()
        extended = b"\xff" * len(self.pcr) if violation else hashlib.new(self.bank, hashed).digest()
        self.pcr = hashlib.new(self.bank, self.pcr + extended).digest()
        words = [shown or digest.hex(), path.decode(errors="surrogateescape"), *(each.hex() for each in more)]
        line = f"{self.register:2d} {sha1.hex()} {template} {' '.join(words)}\n"
        self.text += line.encode(errors="surrogateescape")
        self.binary += struct.pack("<I", self.register) + sha1 + struct.pack("<I", len(template)) + template.encode()
        self.binary += stored

    def file(self, path: bytes, content: bytes = b"content", **options: Any) -> None:
        digest = hashlib.sha256(content).digest()
        self.add("ima-ng", b"sha256:\0" + digest, path, shown=f"sha256:{digest.hex()}", **options)

    def replay(self, form: str = "text", **options: Any) -> ima.ReplayedIma:
        return ima.replay(getattr(self, form), self.pcr, self.bank, register=self.register, **options)


def every_template(bank: str = "sha256") -> SoftwareIma:
    kernel = SoftwareIma(bank)
    sha1, sha256 = hashlib.sha1(b"x").digest(), hashlib.sha256(b"x").digest()
    kernel.add("ima", sha1, b"boot_aggregate")
    kernel.file(b"/init")
    kernel.add("ima-sig", b"sha1:\0" + sha1, b"/bin/sh", b"\3\2", shown=f"sha1:{sha1.hex()}")
    kernel.add("ima-sig", b"sha1:\0" + sha1, b"/bin/ls", b"", shown=f"sha1:{sha1.hex()}")
    kernel.add("ima-buf", b"sha256:\0" + sha256, b"kexec-cmdline", b"quiet", shown=f"sha256:{sha256.hex()}")
    kernel.add("ima-ngv2", b"verity:sha256:\0" + sha256, b"/a", shown=f"verity:sha256:{sha256.hex()}")
    kernel.add("ima-sigv2", b"ima:sha256:\0" + sha256, b"/b", b"\1", shown=f"ima:sha256:{sha256.hex()}")
    kernel.file(b"/var/log", violation=True)
    return kernel


@pytest.mark.parametrize("form", ["text", "binary"])
@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384"])
def test_every_template(form: str, bank: str) -> None:
    claims = every_template(bank).replay(form).as_claims()
    assert claims["ima"] == {"entries": 8, "uncovered": 0, "violations": 1}
    log = claims["ima_log"]
    assert [entry.get("path") for entry in log] == [
        "boot_aggregate", "/init", "/bin/sh", "/bin/ls", "kexec-cmdline", "/a", "/b", None,
    ]  # fmt: skip
    assert log[0]["algorithm"] == "sha1"
    assert log[1] == {
        "template": "ima-ng",
        "violation": False,
        "algorithm": "sha256",
        "digest": hashlib.sha256(b"content").hexdigest(),
        "path": "/init",
    }
    assert log[2]["signature"] == "0302"
    assert "signature" not in log[3]
    assert log[4]["buffer"] == b"quiet".hex()
    assert log[5]["algorithm"] == "verity:sha256"
    assert log[7] == {"template": "ima-ng", "violation": True, "path_unverified": "/var/log"}
    assert json.loads(json.dumps(claims)) == claims


def test_modules_with_appended_signatures() -> None:
    kernel = SoftwareIma()
    sha256 = hashlib.sha256(b"x").digest()
    kernel.add("ima-modsig", b"sha256:\0" + sha256, b"/m.ko", b"", b"", b"", shown=f"sha256:{sha256.hex()}")
    assert kernel.replay().entries == kernel.replay("binary").entries
    stored = b"sha256:\0" + sha256
    line = f"10 %s ima-modsig sha256:{sha256.hex()} /m.ko  sha256:{sha256.hex()} 0a\n"
    hashed = b"".join(struct.pack("<I", len(each)) + each for each in (stored, b"/m.ko\0", b"", stored, b"\n"))
    (entry,) = parse((line % hashlib.sha1(hashed).hexdigest()).encode())
    assert entry.hashed == hashed


@pytest.mark.parametrize("form", ["text", "binary"])
def test_entries_behind_the_quoted_ones_are_counted_and_not_shown(form: str) -> None:
    kernel = every_template()
    quoted = kernel.pcr
    kernel.file(b"/later")
    replayed = ima.replay(getattr(kernel, form), quoted, "sha256")
    assert (len(replayed.entries), replayed.uncovered) == (8, 1)


@pytest.mark.parametrize("form", ["text", "binary"])
def test_entries_of_another_register_are_uncovered(form: str) -> None:
    kernel, other = SoftwareIma(), SoftwareIma(register=11)
    other.file(b"/other")
    kernel.file(b"/init")
    log = getattr(other, form) + getattr(kernel, form)
    replayed = ima.replay(log, kernel.pcr, "sha256")
    assert ([entry["path"] for entry in replayed.entries], replayed.uncovered) == (["/init"], 1)


@pytest.mark.parametrize("form", ["text", "binary"])
def test_any_changed_entry_is_refused(form: str) -> None:
    kernel = every_template()
    log = getattr(kernel, form)
    for wrong in (log.replace(b"/init", b"/evil"), log.replace(b"/bin/ls", b"/bin/xx")):
        with pytest.raises(EventLogMalformed, match="digest"):
            ima.replay(wrong, kernel.pcr, "sha256")
    with pytest.raises(EventLogMismatch, match="PCR 10"):
        ima.replay(log, bytes(32), "sha256")
    other = SoftwareIma()
    other.file(b"/init")
    with pytest.raises(EventLogMismatch):
        ima.replay(getattr(other, form), kernel.pcr, "sha256")


def test_an_entry_declared_a_violation_is_refused() -> None:
    kernel = SoftwareIma()
    kernel.file(b"/init")
    digest = kernel.text.split(b" ")[1]
    with pytest.raises(EventLogMismatch):
        ima.replay(kernel.text.replace(digest, b"0" * 40), kernel.pcr, "sha256")


def test_kernels_that_pad_sha1() -> None:
    kernel = SoftwareIma()
    kernel.file(b"/init")
    digest = bytes.fromhex(kernel.text.split(b" ")[1].decode())
    old = hashlib.sha256(bytes(32) + digest + bytes(12)).digest()
    assert ima.replay(kernel.text, old, "sha256", padded_sha1=True).uncovered == 0
    with pytest.raises(EventLogMismatch):
        ima.replay(kernel.text, old, "sha256")
    with pytest.raises(EventLogMismatch):
        ima.replay(kernel.text, kernel.pcr, "sha256", padded_sha1=True)


def test_paths_that_are_no_text() -> None:
    kernel = SoftwareIma()
    kernel.file(b"/\xff")
    kernel.file(b"/\x1b[2J")
    for form in ("text", "binary"):
        assert [entry["path_hex"] for entry in kernel.replay(form).entries] == ["2fff", "2f1b5b324a"]


def test_limits() -> None:
    kernel = SoftwareIma()
    kernel.file(b"/x")
    with pytest.raises(EventLogMalformed, match="entries"):
        ima.replay(kernel.text * (MAX_EVENTS + 1), kernel.pcr, "sha256")
    with pytest.raises(EventLogMalformed, match="empty"):
        ima.replay(b"", kernel.pcr, "sha256")
    with pytest.raises(EventLogMalformed, match="longer"):
        ima.replay(bytes(5 << 20), kernel.pcr, "sha256")
    with pytest.raises(ValueError, match="size"):
        ima.replay(kernel.text, bytes(20), "sha256")


SHA1_HEX = "1" * 40


@pytest.mark.parametrize(
    "log",
    [
        b"\n",
        b"garbage",
        f"10 {SHA1_HEX[:-1]} ima {SHA1_HEX} /x".encode(),
        f"100 {SHA1_HEX} ima {SHA1_HEX} /x".encode(),
        f"10 {SHA1_HEX} ima-new {SHA1_HEX} /x".encode(),
        f"10 {SHA1_HEX} ima {SHA1_HEX} /x y".encode(),
        f"10 {SHA1_HEX} ima {SHA1_HEX}00 /x".encode(),
        f"10 {SHA1_HEX} ima zz /x".encode(),
        f"10 {SHA1_HEX} ima {SHA1_HEX} {'x' * 256}".encode(),
        f"10 {SHA1_HEX} ima-ng {SHA1_HEX} /x".encode(),
        f"10 {SHA1_HEX} ima-ng sha1:{SHA1_HEX}0 /x".encode(),
        f"10 {SHA1_HEX} ima-sig sha1:{SHA1_HEX} /x 0".encode(),
        struct.pack("<I20sI", 10, b"", 3) + b"imx",
        struct.pack("<I20sI", 10, b"", 0xFFFFFFFF) + b"ima",
        struct.pack("<I20sI", 10, b"", 3) + b"ima" + bytes(20),
        struct.pack("<I20sI", 10, b"", 3) + b"ima" + bytes(10),
        struct.pack("<I20sI", 10, b"", 3) + b"ima" + bytes(20) + struct.pack("<I", 256) + bytes(256),
        struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + struct.pack("<I", 4),
        struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + struct.pack("<II", 4, 0),
        struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + struct.pack("<III", 8, 0, 0),
        struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + struct.pack("<III2s", 10, 0, 2, b"\0\0"),
        struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + struct.pack("<III2s", 10, 0, 1, b"\0\0"),
    ],
)
def test_wrong_lists(log: bytes) -> None:
    with pytest.raises(EventLogMalformed):
        list(parse(log))


@given(raw=st.binary(max_size=200))
def test_nothing_else_is_raised(raw: bytes) -> None:
    for log in (raw, b"10 " + raw, struct.pack("<I20sI", 10, b"", 6) + b"ima-ng" + raw):
        with contextlib.suppress(EvidenceRejected):
            ima.replay(log, bytes(32), "sha256")
