"""Values sealed at rest: whoever has the database file has neither the secrets nor a way to move them about.

What the seal does not do: an old version, put back by someone who edits the file, opens as that old version. That a
store went back in time is noticed by the audit chain, not here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbs.errors import ConfigInvalid
from kbs.secret import Secret
from kbs.storage.model import Entry, Record
from kbs.storage.raw import RawStore, damaged, encode_meta

KEY_SIZE: Final = 32  # octets
_FORMAT: Final = b"\x01"
_ID_SIZE: Final = 4
_NONCE_SIZE: Final = 12  # 96 random bits; NIST SP 800-38D 8.3 allows 2^32 seals under one key
_HEAD_SIZE: Final = 1 + _ID_SIZE + _NONCE_SIZE
_TAG_SIZE: Final = 16
_MAX_BOUNDS: Final = 256


class SealBroken(Exception):
    """Sealed bytes that do not open: changed, moved, or sealed by a key that is not here."""


class SealingKeys:
    """Keys for AES-256-GCM with associated data. The first one seals, all of them open.

    Sealed form: format octet 1, key id (4 octets), nonce (12), ciphertext, tag (16). The id is derived from the key.
    To rotate, put the new key first and keep the old one until everything is sealed anew.
    """

    def __init__(self, keys: Sequence[Secret], *, purpose: bytes = b"store") -> None:
        """Derive one AES key for each secret.

        Args:
            keys: at least one, 32 random octets each.
            purpose: another purpose gives unrelated keys.

        Raises:
            ConfigInvalid: no key, one of another size, or the same key twice.
        """
        self._keys = tuple(keys)
        ciphers: dict[bytes, AESGCM] = {}
        for key in self._keys:
            if len(key) != KEY_SIZE:
                raise ConfigInvalid(f"a sealing key has {KEY_SIZE} octets, not {len(key)}")
            ciphers[_derive(key, b"kbs seal id 1:" + purpose, _ID_SIZE)] = AESGCM(
                _derive(key, b"kbs seal key 1:" + purpose, KEY_SIZE)
            )
        if not ciphers or len(ciphers) != len(self._keys):
            raise ConfigInvalid("sealing needs at least one key, and each only once")
        self._ciphers = ciphers
        self._first = next(iter(ciphers))

    def for_purpose(self, purpose: bytes) -> SealingKeys:
        """Unrelated keys derived from the same secrets, in the same order."""
        return SealingKeys(self._keys, purpose=purpose)

    def seal(self, value: bytes, bound: bytes) -> bytes:
        """Encrypt under the first key; opens only with the same `bound`."""
        nonce = os.urandom(_NONCE_SIZE)
        return _FORMAT + self._first + nonce + self._ciphers[self._first].encrypt(nonce, value, _FORMAT + bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """Decrypt what one of the keys sealed with the same `bound`.

        Raises:
            SealBroken: it does not open.
        """
        if len(sealed) < _HEAD_SIZE + _TAG_SIZE or sealed[:1] != _FORMAT:
            raise SealBroken("not in the sealed form")
        cipher = self._ciphers.get(sealed[1 : 1 + _ID_SIZE])
        if cipher is None:
            raise SealBroken("sealed by a key that is not configured")
        try:
            return cipher.decrypt(sealed[1 + _ID_SIZE : _HEAD_SIZE], sealed[_HEAD_SIZE:], _FORMAT + bound)
        except InvalidTag as err:
            raise SealBroken("changed, or moved from another place") from err

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key sealed this."""
        return sealed[: 1 + _ID_SIZE] == _FORMAT + self._first


def _derive(key: Secret, info: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(key.reveal())


def read_key(path: Path) -> bytes:
    """A key file: 32 octets.

    Raises:
        ConfigInvalid: not there, or of another size.
    """
    try:
        key = path.read_bytes()
    except OSError as err:
        raise ConfigInvalid(f"key file {path}: {err.strerror}") from None
    if len(key) != KEY_SIZE:
        raise ConfigInvalid(f"key file {path}: expected {KEY_SIZE} octets, found {len(key)}")
    return key


def check_seal(keys: SealingKeys, namespace: str, record: Record) -> None:
    """Open a stored record, and forget what is in it.

    Raises:
        StorageUnavailable: it does not open.
    """
    try:
        keys.open(record.value, _bound(namespace, record.key, record.version, record.meta))
    except SealBroken as err:
        raise damaged(namespace, record.key, record.version, f"the seal does not open: {err}") from err


def _bound(namespace: str, key: str, version: int, meta: Mapping[str, str]) -> bytes:
    """Associated data: one JSON array, so that no two different records give the same octets."""
    return json.dumps([namespace, key, version, encode_meta(meta).decode("ascii")]).encode("ascii")


class SealedStore:
    """`KeyValueStore` whose values are sealed in an inner store, bound to namespace, key, version and meta.

    `get` returns authenticated meta. `entries` and `history` show meta as it stands in the inner store: do not decide
    on it before `get`. A record that does not open raises `StorageUnavailable`; the others are served.
    """

    def __init__(self, inner: RawStore, keys: SealingKeys) -> None:
        self._inner = inner
        self._keys = keys
        self._bounds: dict[tuple[str, str], tuple[Record, bytes]] = {}

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The current version, or a past one, opened."""
        found = self._inner.get(namespace, key, version)
        if found is None:
            return None
        bound = self._bound_of(namespace, found)
        try:
            value = self._keys.open(found.value, bound)
        except SealBroken as err:
            raise damaged(namespace, key, found.version, f"the seal does not open: {err}") from err
        return Record(key, found.version, found.meta, value)

    def _bound_of(self, namespace: str, record: Record) -> bytes:
        """Associated data of a record; kept while the inner store hands out the same one."""
        kept = self._bounds.get((namespace, record.key))
        if kept is not None and kept[0] is record:
            return kept[1]
        bound = _bound(namespace, record.key, record.version, record.meta)
        if len(self._bounds) >= _MAX_BOUNDS:
            self._bounds.clear()
        self._bounds[namespace, record.key] = (record, bound)
        return bound

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Seal and write the next version; sealed inside the inner store's transaction, where its number is certain."""
        meta = dict(meta)
        return self._inner.put_with(
            namespace,
            key,
            lambda version: self._keys.seal(value, _bound(namespace, key, version, meta)),
            meta=meta,
            expected=expected,
        )

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Remove the values of all versions."""
        return self._inner.delete(namespace, key, expected=expected)

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Entry]:
        """Current entries by key, sorted; not authenticated."""
        return self._inner.entries(namespace, prefix)

    def history(self, namespace: str, key: str) -> Sequence[Entry]:
        """Kept versions, oldest first; not authenticated."""
        return self._inner.history(namespace, key)

    def reseal(self, namespace: str, key: str) -> int:
        """Seal all kept versions of a key anew where another than the first key sealed them; how many.

        Raises:
            StorageUnavailable: one of them does not open; those before it are done, none is lost.
        """
        done = 0
        for entry in self._inner.history(namespace, key):
            record = self._inner.get(namespace, key, entry.version)
            if record is None or self._keys.is_current(record.value):
                continue
            done += self._inner.rewrite(namespace, key, entry.version, partial(self._again, namespace, record))
        return done

    def _again(self, namespace: str, record: Record, sealed: bytes) -> bytes:
        bound = _bound(namespace, record.key, record.version, record.meta)
        try:
            return self._keys.seal(self._keys.open(sealed, bound), bound)
        except SealBroken as err:
            raise damaged(namespace, record.key, record.version, f"the seal does not open: {err}") from err

    def change_token(self) -> int:
        """The inner store's."""
        return self._inner.change_token()

    def close(self) -> None:
        """Close the inner store."""
        self._inner.close()
