"""The files that the documents about `rvps compute pcr | init-data | kata | se` and `rvps learn` work on."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from tests.rvps.compute.uki_images import kernel, pe, uki

INIT_DATA = """version = "0.1.0"
algorithm = "sha256"

[data]
"workload" = "payments"
"""


def write(folder: Path) -> None:
    """All of them, the same on every machine."""
    sections = [
        (b".linux", kernel()),
        (b".osrel", b"ID=pod-vm\n"),
        (b".cmdline", b"console=ttyS0 quiet"),
        (b".initrd", b"initial file system" * 100),
        (b".uname", b"6.12.9"),
    ]
    contents = {
        "pod-vm.efi": uki(sections),
        "systemd-bootx64.efi": pe([(b".text", b"boot loader" * 50)]),
        "vmlinuz": kernel(3),
        "node.cred": b"name=node-7",
        "initdata.toml": INIT_DATA.encode(),
        "rootfs.img": b"".join(hashlib.sha256(bytes([index])).digest() * 128 for index in range(5)),
        "se.hdr": _se_header(),
        "measurements.json": json.dumps({"measurements": {"sha256": {"pcr11": "0x" + "5a" * 32}}}).encode(),
        "grub.log": b"grub_cmd: set root=hd0,gpt1\ngrub_cmd: linux /vmlinuz quiet\nkernel_cmdline: /vmlinuz quiet\n",
        "appraisal.json": json.dumps(
            {
                "authentic": True,
                "tee": "tpm",
                "submods": {
                    "cpu0": {
                        "claims": {
                            "pcr11": "3a" * 32,
                            "ak_public": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
                            "boot_measured": True,
                            "binding": "checked",
                            "revocation": "not_applicable",
                        }
                    }
                },
            }
        ).encode(),
        "known.json": json.dumps([{"name": "tpm_pcr11", "value": ["3a" * 32], "valid": True}]).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _se_header() -> bytes:
    """One key slot, nothing encrypted."""
    digests = [hashlib.sha512(name).digest() for name in (b"pages", b"addresses", b"tweaks")]
    size = 416 + 80 + 16
    head = struct.pack(">8sII12s4xQQQQ160s", b"IBMSecEx", 0x100, size, bytes(12), 1, 0, 0, 0, bytes(160))
    return head + b"".join(digests) + b"\1" * 32 + bytes(48) + bytes(range(16))
