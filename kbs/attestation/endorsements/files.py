"""Endorsements from files that a person put there."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Final

from cryptography import x509

from kbs.attestation.model import Endorsements, Evidence, Verifier
from kbs.attestation.x509 import common_name, load_certificate, load_crl
from kbs.errors import ConfigInvalid

MAX_FILE: Final = 2 * 1024 * 1024  # bytes
_MAX_FILES: Final = 64
_SUFFIXES: Final = {".der", ".pem", ".crl", ".crt", ".cer"}
_KINDS: Final = {"SEV-VCEK": "vcek", "SEV-VLEK": "vlek"}  # by subject, AMD 57230


def read_bounded(path: Path) -> bytes | None:
    """A regular file of at most `MAX_FILE` bytes; None when there is none, or it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(MAX_FILE + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_FILE else None


def endorsements_in(folder: Path, verifier: Verifier, evidence: Evidence) -> Endorsements:
    """What a folder of DER and PEM files holds for this evidence, by what the files are and not by their names.

    Revocation lists and AMD endorsement keys are taken; roots and anything else are left alone, since roots are
    settings.

    Raises:
        ConfigInvalid: no folder, too many files, one that does not parse, or two of a kind.
        EvidenceRejected: the evidence does not parse.
    """
    given: dict[str, str] = {}
    for path in _files(folder):
        data = read_bounded(path)
        if data is None:
            raise ConfigInvalid(f"{path.name}: cannot be read, or is too large")
        kind = _kind(path.name, data)
        if kind in given:
            raise ConfigInvalid(f"{path.name}: a second {kind} in the folder")
        if kind is not None:
            given[kind] = base64.b64encode(data).decode("ascii")
    return verifier.endorsements_from(evidence, given)


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as err:
        raise ConfigInvalid("folder of endorsements cannot be read") from err
    if len(found) > _MAX_FILES:
        raise ConfigInvalid("folder of endorsements has too many files")
    return found


def _kind(name: str, data: bytes) -> str | None:
    try:
        return _KINDS.get(common_name(_certificate_subject(data)))
    except ValueError:
        pass
    try:
        load_crl(data)
    except ValueError as err:
        raise ConfigInvalid(f"{name}: neither a certificate nor a revocation list") from err
    return "crl"


def _certificate_subject(data: bytes) -> x509.Name:
    return load_certificate(data).subject
