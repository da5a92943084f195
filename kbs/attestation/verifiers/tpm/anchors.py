"""Which attestation keys an operator trusts, read once and strictly. There is no default.

Anchors, a JSON object with any of these members:

- `trusted_aks`: enrolled attestation keys. Each is text: a SubjectPublicKeyInfo (PEM, or DER in base64), or a
  TPM2B_PUBLIC in base64 as tpm2-tools writes it, whose attributes are then checked too.
- `ak_roots`: certificates (PEM, or DER in base64) of authorities whose word on attestation keys is taken.
- `ak_crls`: revocation lists (PEM, or DER in base64) of authorities on the way to those roots.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.attestation.tpm.keys import (
    AttestationKey,
    check_attestation_key,
    encode_attestation_key,
    load_attestation_key,
)
from kbs.attestation.tpm.public import check_attestation_attributes, parse_public
from kbs.attestation.x509 import load_certificates, load_crl
from kbs.errors import ConfigInvalid, EvidenceMalformed
from kbs.protocol.tee import Tee

_NAMES: Final = ("trusted_aks", "ak_roots", "ak_crls")
_DER_SEQUENCE: Final = 0x30
_NOBODY: Final = (
    "tpm: no attestation key is enrolled, so no TPM could be trusted. Set attestation.anchors.tpm to a JSON file "
    '{"trusted_aks": ["<public key>", ...]} or {"ak_roots": ["<certificate>", ...]}'
)


@dataclass(frozen=True, slots=True)
class TpmAnchors:
    """Whom to believe that a key is an attestation key of a TPM.

    enrolled: keys by their DER SubjectPublicKeyInfo.
    crls: by the DER name of their issuer; signatures are checked against the chain they are used for.
    """

    enrolled: Mapping[bytes, AttestationKey]
    roots: Sequence[x509.Certificate] = ()
    crls: Mapping[bytes, bytes] = field(default_factory=dict)


def read_anchors(anchors: Mapping[str, Any] | None) -> TpmAnchors:
    """Decode the anchors.

    Raises:
        ConfigInvalid: nobody is trusted, an unknown member, or an entry that cannot be used.
    """
    if anchors is None:
        raise ConfigInvalid(_NOBODY)
    if not isinstance(anchors, Mapping):
        raise ConfigInvalid("tpm anchors: not a JSON object")
    if unknown := set(anchors) - set(_NAMES):
        raise ConfigInvalid(f"tpm anchors: unknown {sorted(unknown)}; known are {', '.join(_NAMES)}")
    enrolled = {}
    for place, text in _texts(anchors, "trusted_aks"):
        key = _key(place, text)
        enrolled[encode_attestation_key(key)] = key
    roots = [certificate for place, text in _texts(anchors, "ak_roots") for certificate in _roots(place, text)]
    if not enrolled and not roots:
        raise ConfigInvalid(_NOBODY)
    return TpmAnchors(enrolled, tuple(roots), _crls(anchors))


def read_options(options: Mapping[str, Any]) -> bool:
    """The one option, `allow_unchecked_revocation`: list of TEE names; whether `tpm` is among them.

    Raises:
        ConfigInvalid: another option, or a value of a wrong type.
    """
    if unknown := set(options) - {"allow_unchecked_revocation"}:
        raise ConfigInvalid(f"tpm: unknown options {sorted(unknown)}")
    waived = options.get("allow_unchecked_revocation", ())
    if not isinstance(waived, list | tuple) or not all(isinstance(name, str) for name in waived):
        raise ConfigInvalid("tpm: allow_unchecked_revocation is not a list of texts")
    if strangers := set(waived) - set(Tee):
        raise ConfigInvalid(f"tpm: allow_unchecked_revocation names unknown TEEs {sorted(strangers)}")
    return Tee.TPM in waived


def _texts(anchors: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    value = anchors.get(name, [])
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ConfigInvalid(f"tpm anchors: {name} is not a list of texts")
    return [(f"{name}[{index}]", text) for index, text in enumerate(value)]


def _key(place: str, text: str) -> AttestationKey:
    try:
        if text.lstrip().startswith("-----BEGIN"):
            return check_attestation_key(load_pem_public_key(text.encode("ascii")))
        raw = _octets(text)
        if raw[:1] == bytes((_DER_SEQUENCE,)):
            return load_attestation_key(raw)
        public = parse_public(raw)
        check_attestation_attributes(public)
    except EvidenceMalformed as err:
        raise ConfigInvalid(f"tpm anchors: {place}: {err}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"tpm anchors: {place} is no public key in PEM or base64") from None
    return public.key


def _roots(place: str, text: str) -> tuple[x509.Certificate, ...]:
    try:
        return load_certificates(_octets(text))
    except ValueError:
        raise ConfigInvalid(f"tpm anchors: {place} is no certificate in PEM or base64") from None


def _crls(anchors: Mapping[str, Any]) -> dict[bytes, bytes]:
    """By issuer. Of two of one authority only one would be asked, and perhaps not the one that names a certificate."""
    found: dict[bytes, bytes] = {}
    for place, text in _texts(anchors, "ak_crls"):
        issuer, raw = _crl(place, text)
        if found.setdefault(issuer, raw) != raw:
            raise ConfigInvalid(
                f"tpm anchors: {place} is a second revocation list of one authority; keep the newer one"
            )
    return found


def _crl(place: str, text: str) -> tuple[bytes, bytes]:
    try:
        raw = _octets(text)
        return load_crl(raw).issuer.public_bytes(), raw
    except ValueError:
        raise ConfigInvalid(f"tpm anchors: {place} is no revocation list in PEM or base64") from None


def _octets(text: str) -> bytes:
    """PEM as it is, else base64, in which line breaks are fine.

    Raises:
        ValueError: neither.
    """
    if text.lstrip().startswith("-----BEGIN"):
        return text.strip().encode("ascii")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as err:
        raise ValueError("not base64") from err
