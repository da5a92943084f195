"""What the verifier keeps of a challenge until its answer.

The reference implementation sends the measurement key along, encrypted to a key of its own, and trusts what comes back:
whoever has the public half can make one up. Here the key never leaves the broker but for the machine that is asked, and
comes back as `Binding.kept`, which is sealed with an authenticated key, tied to one handshake, and given back once.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from kbs.attestation.verifiers.se.arcb import MAX_HOST_KEYS, PHKH_SIZE
from kbs.attestation.verifiers.se.measurement import KEY_SIZE, NONCE_SIZE
from kbs.errors import ConfigInvalid

ECHO_SIZE: Final = 32
_FORM: Final = 1
_HEAD: Final = struct.Struct(f">BB{KEY_SIZE}s{NONCE_SIZE}s{ECHO_SIZE}s")


@dataclass(frozen=True, slots=True)
class Issued:
    """One request as made here.

    echo: random octets that the guest sends back as they are; None: nobody remembers them.
    host_keys: hashes of the host keys that can read it; None: not known.
    is_revocation_checked: of these host keys; None: not known.
    """

    measurement_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    echo: bytes | None = field(default=None, repr=False)
    host_keys: tuple[bytes, ...] | None = None
    is_revocation_checked: bool | None = None

    def pack(self) -> bytes:
        """For `VerifierChallenge.kept`. Everything must be known."""
        if self.echo is None or self.host_keys is None or self.is_revocation_checked is None:
            raise ValueError("only what was made here can be kept")
        head = _HEAD.pack(_FORM, self.is_revocation_checked, self.measurement_key, self.nonce, self.echo)
        return head + b"".join(self.host_keys)

    @classmethod
    def unpack(cls, kept: bytes) -> Self | None:
        """What `pack` made; None for that of another release."""
        keys, rest = divmod(len(kept) - _HEAD.size, PHKH_SIZE)
        if rest or not 0 < keys <= MAX_HOST_KEYS or kept[0] != _FORM:
            return None
        _, is_checked, measurement_key, nonce, echo = _HEAD.unpack_from(kept)
        starts = range(_HEAD.size, len(kept), PHKH_SIZE)
        host_keys = tuple(kept[start : start + PHKH_SIZE] for start in starts)
        return cls(measurement_key, nonce, echo, host_keys, bool(is_checked))


def issued_by_hand(value: object) -> tuple[Issued, ...]:
    """The option `se_issued`: a list of `{"measurement_key": <hex>, "request_nonce": <hex>}`.

    Raises:
        ConfigInvalid: anything else.
    """
    if not isinstance(value, list | tuple):
        raise ConfigInvalid("se: se_issued is not a list")
    return tuple(_one(each) for each in value)


def _one(value: object) -> Issued:
    if not isinstance(value, Mapping) or set(value) != {"measurement_key", "request_nonce"}:
        raise ConfigInvalid("se: an item of se_issued has other members than measurement_key and request_nonce")
    return Issued(_octets(value, "measurement_key", KEY_SIZE), _octets(value, "request_nonce", NONCE_SIZE))


def _octets(value: Mapping[str, Any], name: str, size: int) -> bytes:
    try:
        found = bytes.fromhex(value[name])
    except (TypeError, ValueError):
        found = b""
    if len(found) != size:
        raise ConfigInvalid(f"se: {name} of se_issued is not {size} octets in hex")
    return found
