"""Request bodies: bounded while they are read, and again while they are inflated."""

from __future__ import annotations

import zlib

from kbs.errors import MalformedMessage, PayloadTooLarge

_WBITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def check_declared(content_length: str | None, limit: int) -> None:
    """Refuse a body by its `Content-Length`, before a byte of it is read.

    Raises:
        PayloadTooLarge, MalformedMessage.
    """
    if content_length is None:
        return
    if not (content_length.isascii() and content_length.isdigit()):
        raise MalformedMessage("Content-Length is not a number")
    if len(content_length) > 18 or int(content_length) > limit:
        raise too_large(limit)


def too_large(limit: int) -> PayloadTooLarge:
    """The error for a body over its limit."""
    return PayloadTooLarge(f"the body is larger than {limit} octets")


def inflate(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Undo a `Content-Encoding`, never making more than `limit` octets.

    Raises:
        PayloadTooLarge: it would.
        MalformedMessage: another encoding, or bytes that are not what the header says.
    """
    if encoding is None or encoding.lower() == "identity":
        return body
    wbits = _WBITS.get(encoding.lower())
    if wbits is None:
        raise MalformedMessage("Content-Encoding is none of gzip, deflate, identity")
    stream = zlib.decompressobj(wbits)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise MalformedMessage("the body is not what its Content-Encoding says") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not stream.eof or stream.unused_data:
        raise MalformedMessage("the body is cut short or goes on after its end")
    return plain
