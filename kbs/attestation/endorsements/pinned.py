"""The vendors' roots that ship with this package, by name. The one place that reads them.

`roots/FINGERPRINTS` pins every file by its SHA-256 and by that of its public key; a file that does not fit its pin is
never handed out. Where each comes from, and where its vendor publishes it, stands in `roots/SOURCE.md`.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from importlib import resources
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.x509 import load_certificate
from kbs.errors import ConfigInvalid

_HYGON_POINT: Final = slice(68, 212)  # x and y of a Hygon CA certificate, 72 bytes each (verifiers 8.2)


@cache
def names() -> tuple[str, ...]:
    """Every name that `pinned` knows, sorted."""
    return tuple(sorted(name.rpartition(".")[0] for name in _fingerprints()))


@cache
def pinned(name: str) -> bytes:
    """One root.

    Args:
        name: the file's, without its suffix, e.g. `intel_sgx_root_ca`.

    Returns:
        DER of an X.509 certificate; for `hygon_hrk` the 832 bytes of Hygon's own format.

    Raises:
        ConfigInvalid: no such root, or a file in the package differs from its pin.
    """
    found = [(file, pin) for file, pin in _fingerprints().items() if file.rpartition(".")[0] == name]
    if len(found) != 1:
        raise ConfigInvalid(f"no built-in root is called {name}")
    file, pin = found[0]
    content = (resources.files("kbs.attestation.endorsements") / "roots" / file).read_bytes()
    whole, key = _parts(file, content)
    if not all(
        hmac.compare_digest(hashlib.sha256(part).hexdigest(), digest)
        for part, digest in zip((whole, key), pin, strict=True)
    ):
        raise ConfigInvalid(f"built-in root {file} differs from its pinned fingerprint")
    return whole


def _parts(file: str, content: bytes) -> tuple[bytes, bytes]:
    """The root as handed out, and its public key: SubjectPublicKeyInfo, or the point in Hygon's format."""
    if not file.endswith(".pem"):
        return content, content[_HYGON_POINT]
    try:
        certificate: x509.Certificate = load_certificate(content)
    except ValueError as err:
        raise ConfigInvalid(f"built-in root {file} is no certificate") from err
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_bytes(Encoding.DER), key


@cache
def _fingerprints() -> dict[str, tuple[str, str]]:
    """Lines `<file> <SHA-256> <SHA-256 of the public key>`; `#` begins a comment."""
    text = (resources.files("kbs.attestation.endorsements") / "roots" / "FINGERPRINTS").read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {name: (whole, key) for name, whole, key in rows}
