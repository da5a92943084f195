"""From a verified document to the claims that a policy reads."""

from __future__ import annotations

import base64
from typing import Final

from kbs.attestation.model import Binding, Json
from kbs.attestation.verifiers.nitro.document import Document, Kind

_PREFIXES: Final = {Kind.ENCLAVE: "pcr", Kind.NITROTPM: "nitrotpm_pcr"}
_MEASURED_ALWAYS: Final = (0, 1, 2)  # of an enclave: image, kernel and bootstrap, application


def claims_of(document: Document, binding: Binding) -> dict[str, Json]:
    """All claims of one document.

    Registers are lower-case hex, `pcr0` … of an enclave and `nitrotpm_pcr0` … of an instance, so that no value approved
    for one passes for the other. `debug` is there for enclaves only. Other octets are base64.
    """
    claims: dict[str, Json] = {
        "document": str(document.kind),
        "module_id": document.module_id,
        "timestamp": document.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "digest": "SHA384",
        "binding": "not_checked" if binding.report_data is None else "checked",
        "revocation": "not_applicable",
        **{f"{_PREFIXES[document.kind]}{index}": value.hex() for index, value in document.registers.items()},
    }
    if document.kind is Kind.ENCLAVE:
        claims["debug"] = _is_debug(document)
    if document.public_key is not None:
        claims["public_key"] = base64.b64encode(document.public_key).decode("ascii")
    if document.nonce is not None:
        claims["report_data"] = document.nonce.hex()
    if document.user_data is not None:
        claims["init_data"] = document.user_data.hex()
    return claims


def _is_debug(document: Document) -> bool:
    """An enclave in debug mode has registers of zeros, since its memory and console are open to its parent. A register
    that is always measured and is zero, or is not there, says as much."""
    return not all(any(document.registers.get(index, b"")) for index in _MEASURED_ALWAYS)
