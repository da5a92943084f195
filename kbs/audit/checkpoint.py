"""Signed tree heads: C2SP tlog-checkpoint in a C2SP signed-note with one Ed25519 signature.

    <origin>
    <tree size, decimal>
    <root hash, base64>

    — <key name> <base64 of key id (4 octets) and signature (64)>

The key name is the origin. Extension lines may follow the root; a log of files writes none.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kbs.audit.merkle import HASH_SIZE

MAX_NOTE: Final = 16 << 10  # octets; one of ours has about 200
_ED25519: Final = b"\x01"  # signature type (signed-note, "Signature types")
_ID_SIZE: Final = 4
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")  # no leading zeros; below 2^63
_NAME: Final = re.compile(r"[^\s+]+")  # key names hold no space and no plus (signed-note, "Format")


class CheckpointInvalid(ValueError):
    """A note that does not parse, is not signed by a known key, or is about another log."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a head says: the log `origin` had `size` lines whose Merkle tree hash is `root` (32 octets).

    extensions: further signed lines, neither empty nor with control characters.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> bytes:
        """The signed part of the note, its last newline included."""
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions)).encode()


class HeadSigner:
    """Signs heads of one log."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        """Raises ValueError for an origin that cannot name a key: empty, or with white space or a plus."""
        if not _NAME.fullmatch(origin) or not origin.isprintable():
            raise ValueError("an origin has at least one character, and no white space and no plus")
        self.origin = origin
        self.public_key = key.public_key()
        self._key = key
        self._id = key_id(origin, self.public_key)

    def sign(self, size: int, root: bytes, extensions: tuple[str, ...] = ()) -> bytes:
        """The whole note for this size and root."""
        text = Checkpoint(self.origin, size, root, extensions).text()
        signature = base64.b64encode(self._id + self._key.sign(text))
        return text + b"\n" + f"\u2014 {self.origin} ".encode() + signature + b"\n"


def key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """First 4 octets of SHA-256 over name, newline, type 1, key (signed-note, "Signatures")."""
    return sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:_ID_SIZE]


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """The key as other tools take it: `<name>+<key id, hex>+<base64 of type, key>` (signed-note, "Verifier keys")."""
    encoded = base64.b64encode(_ED25519 + key.public_bytes_raw()).decode("ascii")
    return f"{name}+{key_id(name, key).hex()}+{encoded}"


def read_head(note: bytes, keys: Sequence[Ed25519PublicKey], origin: str | None = None) -> Checkpoint:
    """Read a note after checking its signature by one of `keys` under the name of its origin.

    Args:
        note: as found in a file; nothing in it is trusted.
        keys: the log's key, and retired ones of it if their heads shall still count.
        origin: the log it must be about; None takes any that the key signed.

    Raises:
        CheckpointInvalid: it is anything else than a well-formed, signed head of this log.
    """
    head, signed, signatures = _split(note)
    if origin is not None and head.origin != origin:
        raise CheckpointInvalid(f"it is about the log {head.origin!r}, not {origin!r}")
    known = {key_id(head.origin, key): key for key in keys}
    verified = False
    for name, blob in signatures:
        key = known.get(blob[:_ID_SIZE]) if name == head.origin else None
        if key is None:
            continue  # cosignatures of others do not concern us (signed-note, "Verifying")
        try:
            key.verify(blob[_ID_SIZE:], signed)
        except InvalidSignature as err:
            raise CheckpointInvalid("its signature does not verify") from err
        verified = True
    if not verified:
        raise CheckpointInvalid("it has no signature by the log's key")
    return head


def _split(note: bytes) -> tuple[Checkpoint, bytes, list[tuple[str, bytes]]]:
    if len(note) > MAX_NOTE:
        raise CheckpointInvalid("it is too long for a head")
    text, gap, tail = note.rpartition(b"\n\n")
    try:
        lines = text.decode("utf-8").split("\n")
        signatures = tail.decode("utf-8").split("\n")
    except UnicodeDecodeError as err:
        raise CheckpointInvalid("it is not UTF-8") from err
    if not gap or len(lines) < 3 or not all(lines) or signatures[-1] or len(signatures) < 2:
        raise CheckpointInvalid("it is not a signed note of origin, size and root")
    if not all(line.isprintable() for line in (*lines, *signatures)):
        raise CheckpointInvalid("it holds control characters")
    root = _decode(lines[2])
    if not _SIZE.fullmatch(lines[1]) or root is None or len(root) != HASH_SIZE:
        raise CheckpointInvalid("its size or root does not parse")
    head = Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))
    return head, text + b"\n", [_signature(line) for line in signatures[:-1]]


def _signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    blob = _decode(encoded)
    if dash != "\u2014" or not _NAME.fullmatch(name) or blob is None or len(blob) <= _ID_SIZE:
        raise CheckpointInvalid("a signature line does not parse")
    return name, blob


def _decode(encoded: str) -> bytes | None:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # one spelling only: the standard library ignores stray bits in the last character
    return raw if hmac.compare_digest(base64.b64encode(raw), encoded.encode("ascii")) else None
