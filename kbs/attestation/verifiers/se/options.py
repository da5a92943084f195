"""Settings of the SE verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kbs.attestation.model import VerifierOptions
from kbs.attestation.verifiers.se.arcb import PHKH_SIZE
from kbs.attestation.verifiers.se.issued import Issued, issued_by_hand
from kbs.attestation.verifiers.se.material import INLINE
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_KNOWN: Final = {"se_directory", "se_issued", "allow_unchecked_revocation"}
_ANCHORS: Final = {"private_key_pem", "image_phkh", "attestation_phkh", *INLINE}
_DIRECTORY: Final = "se"


@dataclass(frozen=True, slots=True)
class SeOptions:
    """What an operator provides and may relax.

    directory: see `kbs.attestation.verifiers.se.material`; None by hand: nothing can be issued.
    inline: anchors that stand in its place; None: there are none.
    issued: what counts as issued when evidence is judged by hand. In a handshake it is the handshake's own state.
    image_hosts, attestation_hosts: host keys (PHKH) that may have unpacked the image and read the request; None: those
        of the image headers, and those that were asked.
    waive_revocation: host-key documents are used although a revocation list is missing; visible in the claims.
    """

    directory: Path | None = None
    inline: Mapping[str, Any] | None = None
    issued: tuple[Issued, ...] = ()
    image_hosts: frozenset[bytes] | None = None
    attestation_hosts: frozenset[bytes] | None = None
    waive_revocation: bool = False


def read_options(given: VerifierOptions) -> SeOptions:
    """Decode the settings.

    The anchor `private_key_pem` is known and not read: nothing is encrypted to a key of the verifier's here.

    Raises:
        ConfigInvalid: an unknown name, a value of a wrong type, or `se_issued` for a broker.
    """
    options, anchors = given.options, given.anchors or {}
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"se: unknown options {sorted(unknown)}")
    if unknown := set(anchors) - _ANCHORS:
        raise ConfigInvalid(f"se anchors: unknown {sorted(unknown)}")
    if given.directory is not None and "se_issued" in options:
        raise ConfigInvalid("se: se_issued is for judging evidence by hand; a broker issues for itself")
    waived = options.get("allow_unchecked_revocation", ())
    if not isinstance(waived, list | tuple) or not all(isinstance(each, str) and each in set(Tee) for each in waived):
        raise ConfigInvalid("se: allow_unchecked_revocation is not a list of TEE names")
    inline = anchors if INLINE & set(anchors) else None
    return SeOptions(
        directory=None if inline is not None else _directory(options, given.directory),
        inline=inline,
        issued=issued_by_hand(options.get("se_issued", ())),
        image_hosts=_hashes(anchors, "image_phkh"),
        attestation_hosts=_hashes(anchors, "attestation_phkh"),
        waive_revocation=Tee.SE in waived,
    )


def _directory(options: Mapping[str, Any], data: Path | None) -> Path | None:
    name = options.get("se_directory", None if data is None else _DIRECTORY)
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise ConfigInvalid("se: se_directory is not text")
    return Path(name) if data is None else data / name


def _hashes(anchors: Mapping[str, Any], name: str) -> frozenset[bytes] | None:
    """One hash in hex, or a list of them."""
    if name not in anchors:
        return None
    value = anchors[name]
    try:
        found = frozenset(bytes.fromhex(each) for each in ([value] if isinstance(value, str) else value))
    except (TypeError, ValueError):
        found = frozenset()
    if not found or any(len(each) != PHKH_SIZE for each in found):
        raise ConfigInvalid(f"se anchors: {name} is not a hash of {PHKH_SIZE} octets in hex, nor a list of them")
    return found
