"""Runtime data of an HCL report: the vTPM's attestation key, how the VM is configured, and a word of the guest's own.

JSON that the paravisor wrote and the hardware report is bound to. Only `user-data` is the guest's.

Source: verifiers 5.2.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from kbs import strict_json
from kbs.attestation.tpm.keys import AttestationKey, check_attestation_key
from kbs.errors import EvidenceMalformed, MalformedMessage, PayloadTooLarge

USER_DATA_SIZE: Final = 64

_LIMITS: Final = strict_json.Limits(size=12 * 1024, depth=6, tokens=300)
_MAX_KEYS: Final = 16
_AK_NAME: Final = "HCLAkPub"
_EXPONENT: Final = "AQAB"  # 65537
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_HEX: Final = re.compile(rf"(?:[0-9a-fA-F]{{2}}){{0,{USER_DATA_SIZE}}}")


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """What of the runtime data is used. Trusted as far as `hcl.check_bound` was asked.

    configuration: `vm-configuration`, a JSON object; empty when there is none.
    user_data: what the guest had put in, at most 64 octets; None in old reports.
    """

    attestation_key: AttestationKey
    configuration: Mapping[str, Any]
    user_data: bytes | None

    @property
    def secure_boot(self) -> bool | None:
        """Whether UEFI secure boot is on; None when the report does not say."""
        value = self.configuration.get("secure-boot")
        return value if isinstance(value, bool) else None


def parse_runtime_data(variable_data: bytes) -> RuntimeData:
    """Read the variable data of an HCL report.

    Raises:
        EvidenceMalformed: not such JSON, or not exactly one usable attestation key in it.
    """
    try:
        document = strict_json.decode(variable_data, limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge):
        raise EvidenceMalformed("runtime data of the HCL report is not JSON of its kind") from None
    if not isinstance(document, dict):
        raise EvidenceMalformed("runtime data of the HCL report is not an object")
    configuration = document.get("vm-configuration", {})
    if not isinstance(configuration, dict):
        raise EvidenceMalformed("configuration in the runtime data is not an object")
    if "secure-boot" in configuration and not isinstance(configuration["secure-boot"], bool):
        raise EvidenceMalformed("secure boot in the runtime data is neither true nor false")
    return RuntimeData(_attestation_key(document.get("keys")), configuration, _user_data(document.get("user-data")))


def _attestation_key(keys: Any) -> AttestationKey:
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS or not all(isinstance(key, dict) for key in keys):
        raise EvidenceMalformed("keys in the runtime data are not a short list of objects")
    named = [key for key in keys if key.get("kid") == _AK_NAME]
    if len(named) != 1:
        raise EvidenceMalformed("runtime data does not hold exactly one attestation key")
    (key,) = named
    modulus = key.get("n")
    if key.get("kty") != "RSA" or key.get("key_ops") != ["sign"] or key.get("e") != _EXPONENT:
        raise EvidenceMalformed("attestation key in the runtime data is no RSA key for signing")
    if not isinstance(modulus, str) or _BASE64URL.fullmatch(modulus) is None or len(modulus) % 4 == 1:
        raise EvidenceMalformed("attestation key in the runtime data has an unreadable modulus")
    number = int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big")
    try:
        return check_attestation_key(rsa.RSAPublicNumbers(65537, number).public_key())
    except ValueError:
        raise EvidenceMalformed("attestation key in the runtime data is not usable") from None


def _user_data(value: Any) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        raise EvidenceMalformed("user data in the runtime data is not hex of at most 64 octets")
    return bytes.fromhex(value)
