"""PCR values: that a quote covers them, all of them, in their order, and nothing else."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from kbs.attestation.tpm.quote import PcrSelection, Quote
from kbs.attestation.tpm.wire import HashAlgorithm
from kbs.errors import EvidenceMalformed, InitDataMismatch, SignatureInvalid

ALL_PCRS: Final = tuple(range(24))  # PC Client platforms have 24
INIT_DATA_PCR: Final = 8

_FIRMWARE_PCRS: Final = range(8)
_UNUSED: Final = (bytes(32), b"\xff" * 32)


def check_pcrs(
    quote: Quote,
    values: Sequence[bytes],
    signing_hash: HashAlgorithm,
    *,
    bank: HashAlgorithm = HashAlgorithm.SHA256,
    pcrs: tuple[int, ...] = ALL_PCRS,
) -> Mapping[int, bytes]:
    """The values by PCR number, once the quote is shown to cover exactly these.

    The selection is compared and not only the digest: a guest that chooses the selection puts a resettable PCR, say
    16, at the position of another one. Every value has the size of the bank, so that no other cut of the same octets
    gives the same digest.

    Args:
        quote: its signature was checked.
        values: one for each of `pcrs`, in that order, as the guest lists them.
        signing_hash: hash of the signature; the TPM takes it for the PCR digest (TPM 2.0 Part 3, TPM2_Quote).
        pcrs: ascending.

    Raises:
        EvidenceMalformed: another bank or selection, or values of another number or size.
        SignatureInvalid: the values are not those that were signed.
    """
    if quote.selections != (PcrSelection(bank, pcrs),):
        raise EvidenceMalformed("TPM quote covers another bank or other PCRs than asked for")
    if len(values) != len(pcrs) or any(len(value) != bank.size for value in values):
        raise EvidenceMalformed("list of PCR values has another length, or values of another size, than the quote's")
    if not hmac.compare_digest(signing_hash.digest(b"".join(values)), quote.pcr_digest):
        raise SignatureInvalid("PCR values are not those that the TPM quote signs")
    return dict(zip(pcrs, values, strict=True))


def extend(value: bytes, digest: bytes, bank: HashAlgorithm = HashAlgorithm.SHA256) -> bytes:
    """What a PCR holds after TPM2_PCR_Extend (Part 1, 17.2)."""
    return bank.digest(value + digest)


def is_boot_measured(pcrs: Mapping[int, bytes]) -> bool:
    """Whether something was extended into each of PCR 0 to 7 of the SHA-256 bank.

    Firmware that measures ends each with a separator (TCG PC Client Platform Firmware Profile, 3.3.4). Where it does
    not, whatever runs first writes the values that a policy later takes for those of the boot.
    """
    return not any(pcrs[index] in _UNUSED for index in _FIRMWARE_PCRS)


def check_init_data(value: bytes, digest: bytes) -> None:
    """Compare PCR 8 of the SHA-256 bank with init data: extended once, from zero, with a digest of 32 octets.

    Raises:
        InitDataMismatch: any other value, and any digest that is no SHA-256 digest: it could not have been extended.
    """
    size = HashAlgorithm.SHA256.size
    if len(digest) != size or not hmac.compare_digest(value, extend(bytes(size), digest)):
        raise InitDataMismatch("PCR 8 does not hold the digest of the init data")
