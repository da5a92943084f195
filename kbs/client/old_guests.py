"""Guests before protocol 0.4.0, as a broker meets them: what they send, hash and open.

For trying out what becomes of an old fleet. Written from the specification alone and sharing nothing with the broker,
so that each checks the other.

Source: guest-components 1.4 to 1.6; KBS protocol 4.4 and 12.5.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kbs.client.errors import UnexpectedAnswer
from kbs.client.tee_keys import KeyKind, PrivateKey

_HASHES: Final = ("sha256", "sha384", "sha512", "sm3")
_HASHLIB: Final = ("sha256", "sha384", "sha512")
_OLD_TEES: Final = {"az-snp-vtpm": "azsnpvtpm", "az-tdx-vtpm": "aztdxvtpm"}


@dataclass(frozen=True, slots=True)
class Generation:
    """The guests of some releases of guest-components.

    concatenates: hashes nonce, n and e one behind the other, in place of JSON. evidence_is_text: sends its evidence as
    a string. negotiates: offers hash algorithms, and takes the one selected. opens_old_form: answers are no JWE yet.
    """

    version: str
    key: KeyKind
    concatenates: bool = False
    evidence_is_text: bool = False
    negotiates: bool = True
    opens_old_form: bool = True

    def request(self, tee: str) -> dict[str, Any]:
        """`POST auth`."""
        extra: Any = {"supported-hash-algorithms": list(_HASHES)} if self.negotiates else ""
        return {"version": self.version, "tee": _OLD_TEES.get(tee, tee), "extra-params": extra}

    def report_data(self, nonce: str, key: Mapping[str, str], extra_params: Any) -> bytes:
        """The digest that evidence is bound to.

        Raises:
            UnexpectedAnswer: the challenge selects an algorithm that is not known here, or is not a text for 0.1.0.
        """
        if not self.negotiates:
            if not isinstance(extra_params, str):
                raise UnexpectedAnswer(
                    f"the challenge's extra-params are no text, which protocol {self.version} expects"
                )
            algorithm = "sha384"
        else:
            chosen = extra_params.get("selected-hash-algorithm") if isinstance(extra_params, dict) else None
            algorithm = "sha384" if chosen is None else str(chosen).lower()
        if algorithm not in _HASHLIB:
            raise UnexpectedAnswer("the challenge selects a hash algorithm that is not known here")
        if self.concatenates:
            hashed = nonce + key["n"] + key["e"]
        else:
            hashed = json.dumps({"nonce": nonce, "tee-pubkey": dict(key)}, sort_keys=True, separators=(",", ":"))
        return hashlib.new(algorithm, hashed.encode()).digest()

    def attestation(self, key: Mapping[str, str], evidence: Any) -> dict[str, Any]:
        """`POST attest`."""
        return {"tee-pubkey": dict(key), "tee-evidence": json.dumps(evidence) if self.evidence_is_text else evidence}


GENERATIONS: Final[Mapping[str, Generation]] = {
    "0.1.0-v0.8": Generation("0.1.0", KeyKind.RSA1_5, concatenates=True, evidence_is_text=True, negotiates=False),
    "0.1.0": Generation("0.1.0", KeyKind.RSA1_5, evidence_is_text=True, negotiates=False),
    "0.1.1": Generation("0.1.1", KeyKind.RSA1_5),
    "0.2.0": Generation("0.2.0", KeyKind.EC_P256, opens_old_form=False),
}
"""By protocol version. Two spoke 0.1.0: v0.9 of guest-components, and v0.8, which hashed differently."""


def open_old_form(private_key: PrivateKey, body: bytes) -> bytes:
    """Open an answer as guests up to v0.11 do: the header is plain text and not authenticated, the tag ends the
    ciphertext.

    Raises:
        UnexpectedAnswer: another form, not for this key, or changed on the way.
    """
    try:
        message = json.loads(body)
        header = json.loads(message["protected"])
        if (header["alg"], header["enc"], message["tag"]) != ("RSA1_5", "A256GCM", ""):
            raise UnexpectedAnswer("the answer is not one for guests up to v0.11")
        if not isinstance(private_key, rsa.RSAPrivateKey):
            raise UnexpectedAnswer("the answer is for an RSA key")
        cek = private_key.decrypt(_octets(message["encrypted_key"]), padding.PKCS1v15())
        return AESGCM(cek).decrypt(_octets(message["iv"]), _octets(message["ciphertext"]), None)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnexpectedAnswer("the answer is not one for guests up to v0.11") from None
    except InvalidTag:
        raise UnexpectedAnswer("the answer does not open with this guest's key") from None


def _octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
