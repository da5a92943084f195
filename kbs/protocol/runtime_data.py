"""Runtime data: what a guest hashes into its evidence, and its digest.

Source: KBS protocol 2.5 and 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from kbs import strict_json
from kbs.protocol.tee import Tee
from kbs.protocol.tee_key import TeeKey


class HashAlgorithm(StrEnum):
    """Digests over runtime data, by their name on the wire."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


def primary_runtime_data(nonce: str, key: TeeKey, additional_evidence: str) -> dict[str, Any]:
    """What the primary evidence binds. `additional_evidence` is the text as sent, `""` when there are no devices."""
    return {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": dict(key.members)}


def device_runtime_data(nonce: str, key: TeeKey) -> dict[str, Any]:
    """What every additional (device) evidence binds."""
    return {"nonce": nonce, "tee-pubkey": dict(key.members)}


def digest(runtime_data: Mapping[str, Any], algorithm: HashAlgorithm) -> bytes:
    """Digest over the RFC 8785 form of `runtime_data`; fitting it to a TEE's field is that TEE's rule."""
    return hashlib.new(algorithm.value, strict_json.canonical(dict(runtime_data))).digest()


def hash_for(tee: Tee) -> HashAlgorithm:
    """The algorithm that protocol 0.4.0 selects for all evidence of a guest whose primary TEE this is."""
    return HashAlgorithm.SHA512 if tee is Tee.SE else HashAlgorithm.SHA384
