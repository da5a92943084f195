"""Lists of the Linux integrity measurement architecture, as text or binary, entry by entry.

What the kernel extends is the hash of an entry's template data, with the algorithm of each bank. The binary list holds
the template data; from text they are rebuilt. A violation (a file written while it was measured) has the digest zero in
the list and extends all ones.

Source: Linux 6.12, Documentation/security/IMA-templates.rst and security/integrity/ima (ima_fs.c, ima_template_lib.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from kbs.attestation.event_log.algorithms import SHA1
from kbs.attestation.event_log.records import check_size
from kbs.errors import EventLogMalformed

DIGEST, PATH = "digest", "path"
LEGACY: Final = "ima"
TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    LEGACY: (DIGEST, PATH),
    "ima-ng": (DIGEST, PATH),
    "ima-ngv2": (DIGEST, PATH),
    "ima-sig": (DIGEST, PATH, "signature"),
    "ima-sigv2": (DIGEST, PATH, "signature"),
    "ima-buf": (DIGEST, PATH, "buffer"),
    "ima-modsig": (DIGEST, PATH, "signature", "module_digest", "module_signature"),
}
"""Fields of each template, by what they hold."""

_HEAD: Final = struct.Struct(f"<I{SHA1.size}sI")  # register, digest of the template data, length of the template's name
_U32: Final = struct.Struct("<I")
_MAX_NAME: Final = 32
_LEGACY_PATH: Final = 256  # bytes hashed for the path of the oldest template, padded with zeros
_TEXT: Final = re.compile(rb" ?(\d{1,2}) ([0-9a-f]{40}) ([a-z0-9-]{1,32}) (.*)")
_PREFIXED: Final = re.compile(rb"((?:[a-z]{1,16}:)?[a-z0-9-]{1,16}:)([0-9a-f]{2,128})")
_HEX: Final = re.compile(rb"(?:[0-9a-f]{2})*")


class Entry(NamedTuple):
    """One entry, parsed.

    digest: SHA-1 of `hashed` as the list says it, zero for a violation. hashed: the template data as they are hashed.
    fields: by `TEMPLATES`; each the raw bytes of the field, a path without its NUL.
    """

    register: int
    digest: bytes
    template: str
    hashed: bytes
    fields: dict[str, bytes]


def parse(log: bytes) -> Iterator[Entry]:
    """Entries in their order.

    Raises:
        EventLogMalformed: empty, too large, cut, or of a template that nobody knows.
    """
    check_size(log)
    return _binary(log) if b"\0" in log[: _U32.size] else _text(log)


def _binary(log: bytes) -> Iterator[Entry]:
    offset, end = 0, len(log)
    while offset < end:
        if end - offset < _HEAD.size:
            raise EventLogMalformed("IMA list ends inside an entry")
        register, digest, length = _HEAD.unpack_from(log, offset)
        offset += _HEAD.size
        template = log[offset : offset + min(length, _MAX_NAME)].decode("ascii", errors="replace")
        names = TEMPLATES.get(template)
        if names is None or length != len(template):
            raise EventLogMalformed("IMA list has an entry of an unknown template")
        offset += length
        if template == LEGACY:
            file_digest, path, offset = _legacy(log, offset)
            yield Entry(
                register, digest, template, _hashed_legacy(file_digest, path), {DIGEST: file_digest, PATH: path}
            )
            continue
        size, offset = _length(log, offset)
        hashed = log[offset : offset + size]
        yield Entry(register, digest, template, hashed, dict(zip(names, _fields(hashed, len(names)), strict=True)))
        offset += size


def _legacy(log: bytes, offset: int) -> tuple[bytes, bytes, int]:
    digest = log[offset : offset + SHA1.size]
    size, offset = _length(log, offset + SHA1.size)
    if size >= _LEGACY_PATH:
        raise EventLogMalformed("IMA list has a path that is too long")
    return digest, log[offset : offset + size], offset + size


def _fields(data: bytes, count: int) -> list[bytes]:
    fields: list[bytes] = []
    offset = 0
    for number in range(count):
        size, offset = _length(data, offset)
        field = data[offset : offset + size]
        offset += size
        if number == 1:
            if not field.endswith(b"\0") or b"\0" in field[:-1]:
                raise EventLogMalformed("IMA list has a path that does not end")
            field = field[:-1]
        fields.append(field)
    if offset != len(data):
        raise EventLogMalformed("IMA list has an entry of a wrong length")
    return fields


def _length(data: bytes, offset: int) -> tuple[int, int]:
    """A length that fits what is left, and the offset behind it."""
    if len(data) - offset < _U32.size:
        raise EventLogMalformed("IMA list ends inside an entry")
    (size,) = _U32.unpack_from(data, offset)
    if size > len(data) - offset - _U32.size:
        raise EventLogMalformed("IMA list ends inside an entry")
    return size, offset + _U32.size


def _text(log: bytes) -> Iterator[Entry]:
    for line in log.removesuffix(b"\n").split(b"\n"):
        match = _TEXT.fullmatch(line)
        if match is None:
            raise EventLogMalformed("IMA list has a line that is none of its entries")
        register, digest, template = int(match[1]), bytes.fromhex(match[2].decode()), match[3].decode()
        names = TEMPLATES.get(template)
        words = match[4].split(b" ")
        if names is None:
            raise EventLogMalformed("IMA list has an entry of an unknown template")
        words += [b""] * (len(names) - len(words))  # empty fields at the end, whose spaces somebody trimmed
        if len(words) != len(names):
            raise EventLogMalformed("IMA list has an entry of a wrong length")
        fields = {name: _field(template, name, word) for name, word in zip(names, words, strict=True)}
        if template == LEGACY:
            hashed = _hashed_legacy(fields[DIGEST], fields[PATH])
        else:
            stored = (value + b"\0" if name == PATH else value for name, value in fields.items())
            hashed = b"".join(_U32.pack(len(value)) + value for value in stored)
        yield Entry(register, digest, template, hashed, fields)


def _field(template: str, name: str, word: bytes) -> bytes:
    if name == PATH:
        return word
    if (name == DIGEST and template != LEGACY) or (name == "module_digest" and word):
        match = _PREFIXED.fullmatch(word)
        if match is None or len(match[2]) % 2:
            raise EventLogMalformed("IMA list has a digest without its algorithm")
        return match[1] + b"\0" + bytes.fromhex(match[2].decode())
    if not _HEX.fullmatch(word):
        raise EventLogMalformed("IMA list has a field that is not hexadecimal")
    return bytes.fromhex(word.decode())


def _hashed_legacy(digest: bytes, path: bytes) -> bytes:
    if len(digest) != SHA1.size or len(path) >= _LEGACY_PATH:
        raise EventLogMalformed("IMA list has an entry of a wrong length")
    return digest + path.ljust(_LEGACY_PATH, b"\0")
