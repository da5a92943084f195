"""Request bodies: bounded while they are read, and again while they are inflated."""

from __future__ import annotations

import zlib
from typing import Final

from kbs.errors import LargeBodiesFull, MalformedMessage, PayloadTooLarge

SMALL: Final = 256 << 10
"""Octets. Bodies up to here are not counted: ordinary guests and administrators are served whatever others send."""

LARGE_BODIES: Final = 64 << 20
"""Octets that a worker holds of larger ones at a time, from when they come in until they are answered."""

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


class LargeBodies:
    """What a worker holds of large bodies, which nobody has to prove anything to send. For one event loop."""

    def __init__(self, limit: int = LARGE_BODIES) -> None:
        self._limit = limit
        self.held = 0

    def hold(self) -> HeldBody:
        """To be closed when the body is gone."""
        return HeldBody(self)

    def check(self, more: int) -> None:
        """Whether there is room for so many octets more.

        Raises:
            LargeBodiesFull: there is none.
        """
        if self.held + more > self._limit:
            raise LargeBodiesFull("too many large bodies at a time; try again")


class HeldBody:
    """One body's part of `LargeBodies`."""

    __slots__ = ("_all", "size")

    def __init__(self, everything: LargeBodies) -> None:
        self._all = everything
        self.size = 0

    def check_declared(self, content_length: str | None) -> None:
        """Refuse a body by its `Content-Length`, which is a number, before it is read, if there is no room for it now.

        Nothing is kept free for it: who declares much and sends little takes no room from others.

        Raises:
            LargeBodiesFull: there is none.
        """
        if content_length is not None and int(content_length) > SMALL:
            self._all.check(int(content_length))

    def grow(self, size: int) -> None:
        """It has come to so many octets, packed or unpacked.

        Raises:
            LargeBodiesFull: there is no room for that.
        """
        if size > SMALL and size > self.size:
            self._all.check(size - self.size)
            self._all.held += size - self.size
            self.size = size

    def close(self) -> None:
        """It is gone. More than once does no harm."""
        self._all.held -= self.size
        self.size = 0
