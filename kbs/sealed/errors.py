"""What work on sealed secrets may raise. `str(err)` repeats neither secrets nor raw bytes of the string."""

from __future__ import annotations

from kbs.errors import MalformedMessage


class SealedRefused(MalformedMessage):
    """A sealed secret that guests do not unseal, or that is not safe to take: form, signature, payload."""


class SigningKeyRefused(MalformedMessage):
    """A JWK that cannot sign or verify sealed secrets, or that must not be published."""


class ValueRefused(MalformedMessage):
    """A value, data key or provider setting that cannot be sealed or unsealed."""
