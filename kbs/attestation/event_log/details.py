"""Event data into `details`, type by type. Bounded; trusts nothing.

Every decoder takes the event data and gives the members of `details`, or raises ValueError for data that are not of
the form: then the event stays, without details. Members and notation: attestation-service 7.3.
"""

from __future__ import annotations

import re
import struct
from binascii import b2a_base64
from codecs import utf_16_le_decode
from typing import Any, Final

from kbs.attestation.event_log import aael, device_path, gpt, guid
from kbs.attestation.model import Json

MAX_TEXT: Final = 64 << 10  # bytes of text in one event; a kernel command line has 4 KiB at most

_TAGGED: Final = struct.Struct("<II")  # tag, size
_VARIABLE: Final = struct.Struct("<16sQQ")  # vendor GUID, characters of the name, bytes of the data
_IMAGE_LOAD: Final = struct.Struct("<QQQQ")  # address, length, link address, bytes of the device path
_CONTROL: Final = re.compile(r"[\x00-\x0f\x11-\x1f\x7f-\x9f]")
_ASCII_CONTROL: Final = bytes(sorted({*range(0x10), *range(0x11, 0x20), 0x7F}))
_UTF16_PREFIX: Final = b".\0"  # how systemd-boot's and the stub's UTF-16 texts begin


def text(data: bytes) -> dict[str, Json]:
    """UTF-8 text, as it stands."""
    return {"string": _bounded(data).decode()}


def separator(data: bytes) -> dict[str, Json]:
    """Four bytes: 0 or FFFFFFFF, or 1 before the hash of an error (TCG PC Client Platform Firmware Profile, 10.4.1)."""
    if len(data) != 4:
        raise ValueError("separator of a wrong length")
    return {}


def tagged(data: bytes) -> dict[str, Json]:
    """TCG_PCClientTaggedEvent: the text behind tag and size, and for AAEL its three parts."""
    tag, size = _unpack(_TAGGED, data)
    payload = _bounded(data[_TAGGED.size :])
    if size != len(payload):
        raise ValueError("tagged event of a wrong length")
    if tag == aael.TAG:
        line = payload.decode()
        domain, operation, content = aael.parse(line)
        return {
            "string": line,
            "unicode_name": aael.TAG_NAME,
            "data": {"domain": domain, "operation": operation, "content": content},
        }
    return {"string": payload.decode(errors="replace").replace("\0", "")}


def config_flags(data: bytes) -> dict[str, Json]:
    """Text without control characters, empty if it is not UTF-8; U+0010 becomes a space."""
    if _bounded(data).isascii():
        return {"string": data.translate(None, _ASCII_CONTROL).replace(b"\x10", b" ").decode()}
    try:
        return {"string": _CONTROL.sub("", data.decode()).replace("\x10", " ")}
    except UnicodeDecodeError:
        return {"string": ""}


def ipl(data: bytes) -> dict[str, Json]:
    """What a boot loader says about what it measured: UTF-16LE behind a mark, else UTF-8 up to a NUL, else hex."""
    if len(_bounded(data)) < 2:
        raise ValueError("no text")
    if data.startswith(_UTF16_PREFIX):
        return {"string": utf_16_le_decode(data[2:-2], "strict", True)[0]}
    try:
        return {"string": data.split(b"\0", 1)[0].decode()}
    except UnicodeDecodeError:
        return {"string": data.hex()}


def short_string(data: bytes) -> dict[str, Json]:
    """Description of a blob or table: a length byte that counts a terminating NUL, then text."""
    size = data[0] if data else 0
    if not 0 < size < len(data):
        raise ValueError("description of a wrong length")
    return {"string": data[1:size].decode()}


def variable(data: bytes) -> dict[str, Json]:
    """UEFI_VARIABLE_DATA. `variable_name` is the vendor GUID in stored byte order."""
    vendor, characters, size = _unpack(_VARIABLE, data)
    name_end = _VARIABLE.size + 2 * characters
    if characters > MAX_TEXT or name_end + size != len(data):
        raise ValueError("variable of a wrong length")
    return {
        "unicode_name": utf_16_le_decode(data[_VARIABLE.size : name_end], "strict", True)[0],
        "unicode_name_length": characters,
        "variable_data": b2a_base64(data[name_end:], newline=False).decode(),
        "variable_data_length": size,
        "variable_name": guid.to_stored_text(vendor),
    }


def variable_bytes(data: bytes) -> bytes:
    """The value in event data that `variable` decodes."""
    return data[_VARIABLE.size + 2 * _VARIABLE.unpack_from(data)[1] :]


def image_load(data: bytes) -> dict[str, Json]:
    """UEFI_IMAGE_LOAD_EVENT: the device path of the image, node by node."""
    _, _, _, size = _unpack(_IMAGE_LOAD, data)
    path, rest = data[_IMAGE_LOAD.size : _IMAGE_LOAD.size + size], data[_IMAGE_LOAD.size + size :]
    if len(path) != size or any(rest):  # shim reserves eight bytes too many
        raise ValueError("image load event of a wrong length")
    return {"device_paths": device_path.describe(path)} if size else {}


def partition_table(data: bytes) -> dict[str, Json]:
    """UEFI_GPT_DATA."""
    return gpt.decode(data)


def _unpack(layout: struct.Struct, data: bytes) -> tuple[Any, ...]:
    if len(data) < layout.size:
        raise ValueError("event data are cut")
    return layout.unpack_from(data)


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_TEXT:
        raise ValueError("text is too long")
    return data
