"""Init data: the digest of the document that a guest is started with, and what each TEE's evidence shows of it.

Source: guest-components 4.1 to 4.4: the digest covers the exact bytes of the text; a field takes a shorter digest with
zeros behind it, and the beginning of a longer one. On vTPMs PCR 8 is extended once, so that only SHA-256 will do.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import re2
from cryptography.hazmat.primitives import hashes

from rvps.errors import ArtifactUnusable

NAME: Final = "init_data_digests"
"""Reference value that the shipped policy `init-data` compares the claim `init_data` with: a list."""

MAX_DOCUMENT: Final = 512 << 10
"""Bytes, as the broker takes: Kubernetes allows 256 KiB for all annotations of a pod."""

KATA_VERSION: Final = "0.1.0"
"""What Kata's runtime takes; the broker does not compare it."""

_SIZES: Final[Mapping[str, int]] = {"sha256": 32, "sha384": 48, "sha512": 64, "sm3": 32}
_PCR_SIZE: Final = 32
# The parser of the standard library takes quadratic time for keys of many dotted parts.
_DEEP_KEY: Final = re2.compile(r"""(?:(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")


@dataclass(frozen=True, slots=True)
class InitData:
    """A document that was read. `digest`: raw, of the exact bytes, by the algorithm that the document names."""

    version: str
    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Field:
    """Where one TEE's evidence shows init data. `size`: bytes of the field; None: as long as the digest."""

    what: str
    size: int | None
    is_claimed: bool = True  # as `init_data`, so that policies can compare it


FIELDS: Final[Mapping[str, Field]] = {
    "az-snp-vtpm": Field("PCR 8", _PCR_SIZE),
    "az-tdx-vtpm": Field("PCR 8", _PCR_SIZE),
    "cca": Field("personalization value", 64),
    "csv": Field("host data", 64),
    "nitro": Field("user data", None),
    "sample": Field("echoed digest", None),
    "se": Field("user data", None, is_claimed=False),
    "sgx": Field("CONFIGID", 64),
    "snp": Field("HOST_DATA", 32),
    "tdx": Field("MRCONFIGID", 48),
    "tpm": Field("PCR 8", _PCR_SIZE),
}


def read(raw: bytes) -> InitData:
    """Read a document.

    Raises:
        ArtifactUnusable: too long, not TOML (a key that stands twice, too), a member missing or of the wrong type, or
            an algorithm that nobody computes.
    """
    if len(raw) > MAX_DOCUMENT:
        raise ArtifactUnusable(f"init data: more than {MAX_DOCUMENT} bytes")
    document = _toml(raw)
    version, algorithm, data = document.get("version"), document.get("algorithm"), document.get("data")
    if not isinstance(version, str):
        raise ArtifactUnusable("init data: `version` is missing or not a string")
    if not isinstance(algorithm, str) or algorithm not in _SIZES:
        raise ArtifactUnusable(f"init data: `algorithm` must be one of {', '.join(_SIZES)}, spelled so")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise ArtifactUnusable("init data: `data` is missing or not a table of strings")
    return InitData(version, algorithm, digest_of(raw, algorithm))


def digest_of(raw: bytes, algorithm: str) -> bytes:
    """The digest of a text by the name of an algorithm as it stands in documents."""
    if algorithm != "sm3":
        return hashlib.new(algorithm, raw).digest()
    running = hashes.Hash(hashes.SM3())
    running.update(raw)
    return running.finalize()


def field_value(tee: str, digest: bytes) -> bytes:
    """What the field of one of `FIELDS` holds.

    Raises:
        ArtifactUnusable: the TEE shows no init data, or none with a digest of this length.
    """
    field = FIELDS.get(tee)
    if field is None:
        raise ArtifactUnusable(f"evidence of this TEE shows no init data; there are {', '.join(FIELDS)}")
    if field.what == "PCR 8":
        if len(digest) != _PCR_SIZE:
            raise ArtifactUnusable(f"{tee}: PCR 8 takes a digest of {_PCR_SIZE} bytes only: use algorithm sha256")
        return hashlib.sha256(bytes(_PCR_SIZE) + digest).digest()
    return digest if field.size is None else digest[: field.size].ljust(field.size, b"\0")


def claim(tee: str, digest: bytes) -> str:
    """The claim `init_data` of one TEE: hex, for `sample` base64. Raises as `field_value`."""
    value = field_value(tee, digest)
    return base64.b64encode(value).decode() if tee == "sample" else value.hex()


def _toml(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ArtifactUnusable("init data: not UTF-8 text") from None
    if _DEEP_KEY.search(text):
        raise ArtifactUnusable("init data: a key has too many parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ArtifactUnusable("init data: nested too deeply") from None
    except tomllib.TOMLDecodeError as err:
        if text.startswith("\ufeff"):
            raise ArtifactUnusable("init data: it begins with a byte order mark; save it without one") from err
        raise ArtifactUnusable(f"init data: not TOML: {str(err)[:200]}") from err
    except ValueError:  # a number of more digits than Python reads
        raise ArtifactUnusable("init data: not TOML: a number is too long") from None
