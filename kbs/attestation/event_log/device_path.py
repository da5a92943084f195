"""UEFI device paths as text, node by node, in the notation of the reference implementation.

Source: UEFI 2.10, 10.3 (nodes) and 10.6 (text); the notation deviates from 10.6 where attestation-service 7.3 says so.
"""

from __future__ import annotations

import ipaddress
import struct
from codecs import utf_16_le_decode
from collections.abc import Callable
from typing import Final

from kbs.attestation.event_log import guid

MAX_NODES: Final = 16  # of one path; the longest seen has 5

_NODE: Final = struct.Struct("<BBH")  # type, subtype, length with this header
_END_NODE: Final = 4  # bytes
_PCI: Final = struct.Struct("<BB")
_ACPI: Final = struct.Struct("<II")
_USB: Final = struct.Struct("<BB")
_MAC_SIZE: Final = 31  # bytes shown of the address field, which has 32
_FIBRE_EX: Final = struct.Struct("<4x8s8s")
_IPV4: Final = struct.Struct("<4s4sHHHB")
_IPV4_MORE: Final = struct.Struct("<4s4s")
_HARD_DRIVE: Final = struct.Struct("<IQQ16sBB")
_BBS: Final = struct.Struct("<HH")
_PROTOCOLS: Final = {6: "TCP", 17: "UDP"}
_BBS_KINDS: Final = {1: "Floppy", 2: "HardDrive", 3: "CDROM", 4: "PCMCIA", 5: "USB", 6: "Network"}
_BY_MBR, _BY_GUID = 1, 2


def describe(path: bytes) -> list[str]:
    """Each node as text.

    Args:
        path: packed nodes, the end node included; its last four bytes are taken for the end node without a look.

    Raises:
        ValueError: a node longer than what is left or shorter than its header, or more than `MAX_NODES` nodes.
    """
    end = len(path) - _END_NODE
    if end < 0:
        raise ValueError("device path without an end node")
    nodes: list[str] = []
    offset = 0
    while offset < end:
        if end - offset < _NODE.size or len(nodes) == MAX_NODES:
            raise ValueError("device path is cut or too long")
        kind, subtype, size = _NODE.unpack_from(path, offset)
        if not _NODE.size <= size <= end - offset:
            raise ValueError("device path node of a wrong length")
        nodes.append(_describe_node(kind, subtype, path[offset + _NODE.size : offset + size]))
        offset += size
    return nodes


def _describe_node(kind: int, subtype: int, payload: bytes) -> str:
    describe_payload = _NODES.get((kind, subtype))
    if describe_payload is not None:
        try:
            return describe_payload(payload)
        except (ValueError, struct.error):
            pass  # malformed: shown as what it is
    return f"Path({kind},{subtype},{payload.hex()})"


def _pci(payload: bytes) -> str:
    function, device = _PCI.unpack(payload)
    return f"Pci({function},{device})"


def _acpi(payload: bytes) -> str:
    hid, uid = _ACPI.unpack(payload)
    letters = "".join(chr(0x40 + (hid >> shift & 0x1F)) for shift in (10, 5, 0))
    return f"ACPI({letters}{hid >> 16:04X},{uid})"


def _usb(payload: bytes) -> str:
    port, interface = _USB.unpack(payload)
    return f"USB({port},{interface})"


def _mac(payload: bytes) -> str:
    if len(payload) != _MAC_SIZE + 2:
        raise ValueError("MAC node of a wrong length")
    return f"Mac({payload[:_MAC_SIZE].rstrip(bytes(1)).hex().upper()},0x{payload[-1]:02x})"


def _fibre_ex(payload: bytes) -> str:
    name, unit = _FIBRE_EX.unpack(payload)
    return f"FibreEx(0x{name.hex()},0x{unit.hex()})"


def _ipv4(payload: bytes) -> str:
    local, remote, _, _, protocol, static = _IPV4.unpack_from(payload)
    parts = [
        str(ipaddress.IPv4Address(remote)),
        _PROTOCOLS.get(protocol, ""),
        {0: "DHCP", 1: "Static"}.get(static, ""),
        str(ipaddress.IPv4Address(local)),
    ]
    if len(payload) > _IPV4.size:
        gateway, mask = (int.from_bytes(part, "little") for part in _IPV4_MORE.unpack(payload[_IPV4.size :]))
        if gateway or mask:
            parts += [str(gateway), str(mask)]
    return f"IPv4({','.join(parts)})"


def _hard_drive(payload: bytes) -> str:
    number, start, size, signature, _, signed_by = _HARD_DRIVE.unpack(payload)
    if signed_by == _BY_GUID:
        name = f"GPT,{guid.to_text(signature)}"
    elif signed_by == _BY_MBR:
        name = f"MBR,0x{int.from_bytes(signature[:4], 'little'):08x}"
    else:
        raise ValueError("hard drive without a signature")
    return f"HD({number},{name}{f',0x{start:x},0x{size:x}' if number else ''})"


def _vendor_media(payload: bytes) -> str:
    if len(payload) < guid.SIZE:
        raise ValueError("vendor node is cut")
    return f"VenMedia({guid.to_text(payload[: guid.SIZE])},{payload[guid.SIZE :].hex()})"


def _file(payload: bytes) -> str:
    return f"File({utf_16_le_decode(payload[:-2], 'strict', True)[0]})"


def _bbs(payload: bytes) -> str:
    kind, flags = _BBS.unpack_from(payload)
    text = payload[_BBS.size :].split(b"\0", 1)[0].decode()
    return f"BBS({_BBS_KINDS.get(kind, str(kind))},{text},{flags})"


_NODES: Final[dict[tuple[int, int], Callable[[bytes], str]]] = {
    (1, 0x01): _pci,
    (2, 0x01): _acpi,
    (3, 0x05): _usb,
    (3, 0x0B): _mac,
    (3, 0x0C): _ipv4,
    (3, 0x15): _fibre_ex,
    (4, 0x01): _hard_drive,
    (4, 0x03): _vendor_media,
    (4, 0x04): _file,
    (5, 0x01): _bbs,
}
