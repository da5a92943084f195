"""What work on images may raise. `str(err)` is fit for a terminal, holds no secret and no raw bytes of a stranger's."""

from __future__ import annotations


class ImageError(Exception):
    """Root of the tree. next_step: a command or a short advice that helps; None where nothing is known to."""

    def __init__(self, text: str, *, next_step: str | None = None) -> None:
        super().__init__(text)
        self.next_step = next_step


class KidRefused(ImageError):
    """The name of a KEK that a guest could not ask for."""


class KekRefused(ImageError):
    """A KEK that is not 32 raw bytes, or of another name than the one that is needed."""


class PacketRefused(ImageError):
    """An annotation packet that does not parse, or that the KEK does not open."""


class ImageRefused(ImageError):
    """An image that does not hold together: structure, media types, digests, sizes, MACs, layers out of range."""


class LocationRefused(ImageError):
    """A source or target that is not there, is not named properly, or is taken."""


class RegistryFailed(ImageError):
    """A registry that said no, did not answer, or broke its protocol."""


class RequestRefused(ImageError):
    """A request to the key provider that is not of its protocol, or asks for what it does not do."""


class BrokerRefused(ImageError):
    """A broker that did not store a KEK, or did not hand one out."""
