"""Runtime data: what a guest hashes into its evidence, and its digest.

Source: KBS protocol 2.5 and 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from kbs import strict_json
from kbs.protocol.tee import Tee
from kbs.protocol.tee_key import TeeKey


class HashAlgorithm(StrEnum):
    """Digests over runtime data, by their name on the wire."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


_DIGESTS: Final = {
    HashAlgorithm.SHA256: hashlib.sha256,
    HashAlgorithm.SHA384: hashlib.sha384,
    HashAlgorithm.SHA512: hashlib.sha512,
}


def primary_runtime_data(nonce: str, key: TeeKey, additional_evidence: str) -> dict[str, Any]:
    """What the primary evidence binds. `additional_evidence` is the text as sent, `""` when there are no devices."""
    return {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": dict(key.members)}


def device_runtime_data(nonce: str, key: TeeKey) -> dict[str, Any]:
    """What every additional (device) evidence binds; before protocol 0.4.0, which had no devices, the primary does."""
    return {"nonce": nonce, "tee-pubkey": dict(key.members)}


def digest(runtime_data: Mapping[str, Any], algorithm: HashAlgorithm) -> bytes:
    """Digest over the RFC 8785 form of `runtime_data`; fitting it to a TEE's field is that TEE's rule."""
    return _DIGESTS[algorithm](strict_json.canonical(dict(runtime_data))).digest()


def concatenated_digest(nonce: str, key: TeeKey) -> bytes:
    """What evidence of guests up to v0.8 (protocol 0.1.0) binds: SHA-384 over the texts of `nonce`, `n` and `e`.

    Unambiguous, though nothing stands between them: the nonce is ours, of a fixed length, and `e` is always `AQAB`
    (`parse_tee_key` takes no other), so `n` is what remains. Nor can it be the JSON of another version's runtime data,
    which begins with a brace.
    """
    members = key.members
    return hashlib.sha384(f"{nonce}{members['n']}{members['e']}".encode()).digest()


def hash_for(tee: Tee) -> HashAlgorithm:
    """The algorithm for all evidence of a guest whose primary TEE this is, whatever it offers and in every version.

    Nothing is negotiated, so nobody on the way can negotiate it down (guests take SHA-384 when none is selected).
    """
    return HashAlgorithm.SHA512 if tee is Tee.SE else HashAlgorithm.SHA384
