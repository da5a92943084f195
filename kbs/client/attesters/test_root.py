"""Keys and documents of a make-believe vendor, made once: in memory, or in a folder that a broker and a guest share.

Whoever has the folder can make evidence of any TEE that a broker takes under these roots. It belongs on a machine for
trying things out, and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class TestRoot:
    """Makes keys and documents by name, and gives the same ones ever after.

    Args:
        folder: where they are kept, with mode 0600; None: in memory.
        label: roots in memory with the same label share their RSA keys, which are slow to make; another label is
            another make-believe vendor.
    """

    __test__ = False  # not a test, whatever its name begins with

    def __init__(self, folder: Path | None = None, *, label: str = "test") -> None:
        self._folder = folder
        self._label = label
        self._ec: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._rsa: dict[tuple[str, int], rsa.RSAPrivateKey] = {}  # reading one checks its primes, which is slow
        self._documents: dict[str, bytes] = {}

    def ec(self, name: str, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """The key `name` on `curve`.

        Raises:
            ValueError: there is one of another kind under this name, or the name is not usable.
        """
        if name not in self._ec:
            if self._folder is None:
                self._ec[name] = ec.generate_private_key(curve)
            else:
                pem = self.document(f"{name}.pem", lambda: _pem(ec.generate_private_key(curve)))
                found = load_pem_private_key(pem, None)
                if not isinstance(found, ec.EllipticCurvePrivateKey):
                    raise ValueError(f"{name} is not an elliptic-curve key")
                self._ec[name] = found
        if self._ec[name].curve.name != curve.name:
            raise ValueError(f"{name} is on another curve")
        return self._ec[name]

    def rsa(self, name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
        """The RSA key `name`.

        Raises:
            ValueError: there is one of another kind under this name, or the name is not usable.
        """
        if self._folder is None:
            return _rsa_key(self._label, name, bits)
        if (name, bits) not in self._rsa:
            pem = self.document(f"{name}.pem", lambda: _pem(rsa.generate_private_key(65537, bits)))
            found = load_pem_private_key(pem, None)
            if not isinstance(found, rsa.RSAPrivateKey) or found.key_size != bits:
                raise ValueError(f"{name} is not an RSA key of {bits} bits")
            self._rsa[name, bits] = found
        return self._rsa[name, bits]

    def document(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The bytes `name`: those of last time, or those that `make` gives now.

        Raises:
            ValueError: the name is not usable.
            OSError: the folder cannot be read or written.
        """
        if _NAME.fullmatch(name) is None:
            raise ValueError("names are lower-case letters, digits, dots, dashes and underscores")
        if name not in self._documents:
            self._documents[name] = make() if self._folder is None else _kept(self._folder / name, make)
        return self._documents[name]


@cache
def _rsa_key(label: str, name: str, bits: int) -> rsa.RSAPrivateKey:
    """One key for each name and process."""
    del label, name
    return rsa.generate_private_key(65537, bits)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's bytes; if there is none, it is made whole or not at all, and the first of two writers wins."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
