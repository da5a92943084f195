"""AWS Nitro enclaves: the measurements that `nitro-cli build-enclave` and `describe-eif` print.

Source: AWS Nitro Enclaves user guide, "Where to get an enclave's measurements"; verifiers, nitro.
"""

from __future__ import annotations

import re
from typing import Any, Final

from rvps.errors import ArtifactUnusable
from rvps.strict_json import NotStrictJson, decode

MAX_MEASUREMENTS: Final = 1 << 20  # bytes; describe-eif shows certificates too

_REQUIRED: Final = ("PCR0", "PCR1", "PCR2")
_OPTIONAL: Final = ("PCR8",)  # of signed images
_PCR: Final = re.compile(r"[0-9a-f]{96}", re.ASCII)


def read_measurements(raw: bytes) -> dict[str, str]:
    """`nitro_pcr0` to `nitro_pcr2`, and `nitro_pcr8` of a signed image, as lower-case hex.

    Raises:
        ArtifactUnusable: not that JSON, not SHA-384, a register that is missing or malformed, or one that is zero, as
            only enclaves in debug mode show it.
    """
    try:
        document: Any = decode(raw, max_bytes=MAX_MEASUREMENTS)
    except NotStrictJson as err:
        raise ArtifactUnusable(f"the measurements: {err}") from err
    found = document.get("Measurements") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ArtifactUnusable("the measurements have no member `Measurements`: give the output of nitro-cli as it is")
    algorithm = found.get("HashAlgorithm")
    if not isinstance(algorithm, str) or not algorithm.lower().startswith("sha384"):
        raise ArtifactUnusable("the measurements are not made with SHA-384")
    values = {}
    for name in (*_REQUIRED, *(name for name in _OPTIONAL if name in found)):
        value = found.get(name)
        if not isinstance(value, str) or not _PCR.fullmatch(value):
            raise ArtifactUnusable(f"the measurements have no {name} of 96 lower-case hex digits")
        if not value.strip("0"):
            raise ArtifactUnusable(f"the measurements have a {name} of zeros, as in debug mode")
        values[f"nitro_{name.lower()}"] = value
    return values
