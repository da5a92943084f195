"""Event data into details: every form, and every way to get it wrong."""

from __future__ import annotations

import json
import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.event_log import aael, details, device_path, gpt, guid
from kbs.attestation.event_log.event_types import EVENT_TYPES
from kbs.client.attesters.event_log import SoftwareEventLog

DECODERS = sorted({kind.decode for kind in EVENT_TYPES.values() if kind.decode}, key=lambda decode: decode.__name__)
DISK = UUID("5a2b8ae4-5a24-4c6b-9b3e-b6dd0d4f3a11")


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@given(
    data=st.binary(max_size=200)
    | st.binary(max_size=80).map(lambda tail: struct.pack("<QQQQ", 0, 0, 0, len(tail)) + tail)
)
def test_decoders_give_json_or_value_error(decode: Any, data: bytes) -> None:
    try:
        found = decode(data)
    except ValueError:
        return
    json.dumps(found).encode()
    assert all(isinstance(name, str) for name in found)


@pytest.mark.parametrize(
    ("decode", "data", "expected"),
    [
        (details.text, b"Calling \xc3\xa4\0", {"string": "Calling ä\0"}),
        (details.text, b"\xff", None),
        (details.separator, b"\xff" * 4, {}),
        (details.separator, b"", None),
        (details.config_flags, b"ACPI\x10DATA\0\x1f", {"string": "ACPI DATA"}),
        (details.config_flags, "ä\x10b\x85".encode(), {"string": "ä b"}),
        (details.config_flags, b"\xff\xfe", {"string": ""}),
        (details.config_flags, b"", {"string": ""}),
        (details.ipl, b"MokList\0", {"string": "MokList"}),
        (details.ipl, b"MokList", {"string": "MokList"}),
        (details.ipl, b".\0l\0i\0\0\0", {"string": "li"}),
        (details.ipl, b".\0\0\xd8\0\0", None),  # a lone surrogate
        (details.ipl, b"\xff\xfe\0", {"string": "fffe00"}),
        (details.ipl, b"x", None),
        (details.short_string, b"\x0btd_payload\0" + bytes(16), {"string": "td_payload"}),
        (details.short_string, b"\x0btd_payload\0", {"string": "td_payload"}),
        (details.short_string, b"\x0btd_payload", None),
        (details.short_string, b"\0", None),  # upstream panics
        (details.short_string, b"", None),
        (details.tagged, struct.pack("<II", 7, 3) + b"a\0b", {"string": "ab"}),
        (details.tagged, struct.pack("<II", 7, 1) + b"\xff", {"string": "\ufffd"}),
        (details.tagged, struct.pack("<II", 7, 2) + b"a", None),
        (details.tagged, struct.pack("<II", 7, 0) + b"a", None),
        (details.tagged, b"\0" * 7, None),
        (details.tagged, struct.pack("<II", aael.TAG, 5) + b"a b\xff ", None),
        (details.tagged, struct.pack("<II", aael.TAG, 3) + b"a b", None),
    ],
)
def test_texts(decode: Any, data: bytes, expected: dict[str, Any] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError):
            decode(data)
    else:
        assert decode(data) == expected


@pytest.mark.parametrize("decode", [details.text, details.ipl, details.config_flags])
def test_texts_are_bounded(decode: Any) -> None:
    assert decode(b"x" * details.MAX_TEXT)
    with pytest.raises(ValueError, match="long"):
        decode(b"x" * (details.MAX_TEXT + 1))


def variable(name: str = "db", value: bytes = b"\1\2") -> bytes:
    log = SoftwareEventLog()
    log.variable(1, name, value)
    return log.events[0].data


def test_variables() -> None:
    assert details.variable(variable()) == {
        "unicode_name": "db",
        "unicode_name_length": 2,
        "variable_data": "AQI=",
        "variable_data_length": 2,
        "variable_name": "61dfe48b-ca93-d211-aa0d-00e098032b8c",
    }
    assert details.variable_bytes(variable()) == b"\1\2"
    assert details.variable(variable(value=b""))["variable_data"] == ""


@pytest.mark.parametrize(
    "data",
    [
        variable()[:-1],
        variable() + b"\0",
        variable()[:31],
        bytes(16) + struct.pack("<QQ", 2**63, 2**63),
        bytes(16) + struct.pack("<QQ", 2**64 - 1, 2),
        bytes(16) + struct.pack("<QQ", 1, 0) + b"\0\xd8",
    ],
)
def test_variables_of_a_wrong_form(data: bytes) -> None:
    with pytest.raises(ValueError):
        details.variable(data)


# --- device paths ----------------------------------------------------------------------------------------------------


def node(kind: int, subtype: int, payload: bytes) -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(payload)) + payload


END = node(0x7F, 0xFF, b"")
IPV4 = bytes([10, 0, 0, 1]) + bytes([192, 0, 2, 7]) + struct.pack("<HHHB", 1, 2, 6, 1)
PARTITION = struct.pack("<IQQ", 1, 0x800, 0x1000) + DISK.bytes_le


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (node(1, 1, b"\0\x1f"), "Pci(0,31)"),
        (node(2, 1, struct.pack("<II", 0x0A0341D0, 3)), "ACPI(PNP0A03,3)"),
        (node(3, 5, b"\1\2"), "USB(1,2)"),
        (node(3, 0x0B, bytes.fromhex("525400123456") + bytes(26) + b"\1"), "Mac(525400123456,0x01)"),
        (node(3, 0x0C, IPV4), "IPv4(192.0.2.7,TCP,Static,10.0.0.1)"),
        (node(3, 0x0C, IPV4[:-3] + b"\x11\0\0" + bytes(8)), "IPv4(192.0.2.7,UDP,DHCP,10.0.0.1)"),
        (node(3, 0x0C, IPV4[:-3] + b"\1\0\7"), "IPv4(192.0.2.7,,,10.0.0.1)"),
        (node(3, 0x0C, IPV4 + b"\1\0\0\0\2\0\0\0"), "IPv4(192.0.2.7,TCP,Static,10.0.0.1,1,2)"),
        (node(3, 0x15, bytes(4) + b"\1" * 8 + b"\2" * 8), f"FibreEx(0x{'01' * 8},0x{'02' * 8})"),
        (node(4, 1, PARTITION + b"\2\2"), f"HD(1,GPT,{str(DISK).upper()},0x800,0x1000)"),
        (node(4, 1, bytes(4) + PARTITION[4:] + b"\2\2"), f"HD(0,GPT,{str(DISK).upper()})"),
        (node(4, 1, PARTITION[:20] + b"\xef\xbe\xad\xde" + bytes(12) + b"\1\1"), "HD(1,MBR,0xdeadbeef,0x800,0x1000)"),
        (node(4, 3, DISK.bytes_le + b"\1"), f"VenMedia({str(DISK).upper()},01)"),
        (node(4, 4, "\\EFI\\a.efi\0".encode("utf-16-le")), "File(\\EFI\\a.efi)"),
        (node(5, 1, b"\2\0\1\0disk\0"), "BBS(HardDrive,disk,1)"),
        (node(5, 1, b"\x80\0\1\0disk"), "BBS(128,disk,1)"),
        # other or malformed
        (node(9, 9, b"\xab"), "Path(9,9,ab)"),
        (node(1, 1, b"\0"), "Path(1,1,00)"),
        (node(3, 0x0B, b"\1"), "Path(3,11,01)"),
        (node(3, 0x0C, IPV4 + b"\1"), f"Path(3,12,{(IPV4 + bytes([1])).hex()})"),
        (node(4, 1, PARTITION + b"\2\0"), f"Path(4,1,{(PARTITION + bytes([2, 0])).hex()})"),
        (node(4, 3, b"\1"), "Path(4,3,01)"),
        (node(4, 4, b"\0\xd8\0\0"), "Path(4,4,00d80000)"),
        (node(5, 1, b"\2\0\1\0\xff\0"), "Path(5,1,02000100ff00)"),
    ],
)
def test_nodes(raw: bytes, expected: str) -> None:
    assert device_path.describe(raw + END) == [expected]


@pytest.mark.parametrize(
    "raw",
    [b"", b"abc", b"\1\1\3\0" + END, b"\1\1\x07\0\0" + END, b"\1\1\6" + END, node(9, 9, b"") * 17 + END],
    ids=["empty", "no end", "too short", "too long", "cut", "too many"],
)
def test_paths_of_a_wrong_form(raw: bytes) -> None:
    with pytest.raises(ValueError):
        device_path.describe(raw)


def test_as_many_nodes_as_a_path_may_have() -> None:
    assert len(device_path.describe(node(9, 9, b"") * device_path.MAX_NODES + END)) == device_path.MAX_NODES


def image(path: bytes, behind: bytes = b"") -> bytes:
    return struct.pack("<QQQQ", 1, 2, 3, len(path)) + path + behind


def test_image_loads() -> None:
    path = node(4, 4, "kernel\0".encode("utf-16-le")) + END
    assert details.image_load(image(path)) == {"device_paths": ["File(kernel)"]}
    assert details.image_load(image(path, bytes(8))) == {"device_paths": ["File(kernel)"]}  # as shim logs it
    assert details.image_load(image(b"")) == {}
    for wrong in (image(path, b"\1"), image(path)[:-1], image(b"")[:-1], struct.pack("<QQQQ", 1, 2, 3, 2**64 - 1)):
        with pytest.raises(ValueError):
            details.image_load(wrong)


# --- partition tables ------------------------------------------------------------------------------------------------


def table(
    count: int, entries: int | None = None, *, signature: bytes = b"EFI PART", header: int = 92, size: int = 128
) -> bytes:
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", signature, 0x10000, header, 0, 0, 1, 2, 3, 4, DISK.bytes_le, 2, 128, size, 0
    )
    entry = (
        DISK.bytes_le
        + UUID(int=1).bytes_le
        + struct.pack("<QQQ", 34, 99, 0)
        + "root".encode("utf-16-le").ljust(72, b"\0")
    )
    return head + struct.pack("<Q", count) + entry * (count if entries is None else entries)


def test_partition_tables() -> None:
    assert gpt.decode(table(0))["gpt"] == {"disk": str(DISK).upper(), "partitions": []}
    assert gpt.decode(table(2))["gpt"]["partitions"][1] == {
        "number": 2,
        "type": str(DISK).upper(),
        "guid": str(UUID(int=1)),
        "first_lba": 34,
        "last_lba": 99,
        "name": "root",
    }
    assert len(gpt.decode(table(128))["gpt"]["partitions"]) == 128


@pytest.mark.parametrize(
    "data",
    [
        b"",
        table(0)[:-1],
        table(1, 0),
        table(1, 2),
        table(1)[:-1],
        table(129),
        table(2**63, 0),
        table(1, signature=b"EFI TRAP"),
        table(1, header=96),
        table(1, size=256),
        table(1)[:-72] + b"\0\xd8" + bytes(70),
        table(1).replace(struct.pack("<Q", 99), struct.pack("<Q", 2**63)),
    ],
)
def test_partition_tables_of_a_wrong_form(data: bytes) -> None:
    with pytest.raises(ValueError):
        gpt.decode(data)


@given(raw=st.binary(min_size=16, max_size=16))
def test_guids(raw: bytes) -> None:
    assert guid.to_text(raw) == str(UUID(bytes_le=raw)).upper()


# --- events of the attestation agent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("d o text with spaces", ("d", "o", "text with spaces")),
        ('d o {"a":[1,true]}', ("d", "o", {"a": [1, True]})),
        ("d o 7", ("d", "o", 7)),
        ("d o null", ("d", "o", None)),
        ("d o nothing", ("d", "o", "nothing")),
        ("d o ", ("d", "o", "")),
        ("d o  x", ("d", "o", " x")),
        ('d o {"a":1,"a":2}', ("d", "o", '{"a":1,"a":2}')),
        ("d o [NaN]", ("d", "o", "[NaN]")),
        ("d o " + "[" * 40, ("d", "o", "[" * 40)),
        ("d o " + "[" * 20, ("d", "o", "[" * 20)),
        ('d o "\\ud800"', ("d", "o", '"\\ud800"')),
        ("d o ä", ("d", "o", "ä")),
        (f"d o {2**63 - 1}", ("d", "o", 2**63 - 1)),
        (f"d o {2**63}", ("d", "o", str(2**63))),
        (f"d o [{-(2**63) - 1}]", ("d", "o", f"[{-(2**63) - 1}]")),
        (f'd o {{"a":[{2**64}]}}', ("d", "o", f'{{"a":[{2**64}]}}')),
        ("d o 1e999", ("d", "o", "1e999")),
    ],
)
def test_lines(line: str, expected: tuple[str, str, Any]) -> None:
    assert tuple(aael.parse(line)) == expected


def test_large_content_stays_text() -> None:
    small, large = f'"{"x" * 1000}"', f'"{"x" * (16 << 10)}"'
    assert aael.parse(f"d o {small}").content == "x" * 1000
    assert aael.parse(f"d o {large}").content == large


@pytest.mark.parametrize("line", ["", "d", "d o", "d  x", " o x", "d o x\n", "d o x\0", "d\to x y", "d o \x85"])
def test_lines_of_a_wrong_form(line: str) -> None:
    with pytest.raises(ValueError):
        aael.parse(line)
