"""The envelope kind: a value under a data key, which a KMS keeps under one of its own.

Sealing takes the data key in both forms, plain and as the KMS encrypted it: this tool speaks to no KMS.
Source: guest-components 3.2, 3.3; NIST SP 800-38D (GCM), SP 800-38A (CTR).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kbs.sealed.errors import ValueRefused
from kbs.sealed.payload import IV_SIZES, Envelope, WrapType
from kbs.secret import Secret
from kbs.strict_json import Json

DATA_KEY_SIZE: Final = 32  # bytes


def check_data_key(raw: bytes) -> Secret:
    """A data key from its bytes.

    Raises:
        ValueRefused: not 32 bytes.
    """
    if len(raw) != DATA_KEY_SIZE:
        newline = ": there is a newline at its end" if len(raw) == DATA_KEY_SIZE + 1 and raw.endswith(b"\n") else ""
        raise ValueRefused(f"a data key is {DATA_KEY_SIZE} raw bytes, and this has {len(raw)}{newline}")
    return Secret(raw)


def encrypt(
    value: Secret,
    data_key: Secret,
    *,
    encrypted_key: bytes,
    key_id: str,
    provider: str,
    provider_settings: Mapping[str, Json],
    wrap_type: WrapType = WrapType.A256GCM,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Envelope:
    """An envelope with a fresh IV.

    Args:
        data_key: 32 bytes, of `check_data_key`. encrypted_key: the same, as the KMS encrypted it.
    """
    iv = random(IV_SIZES[wrap_type])
    if wrap_type is WrapType.A256GCM:
        encrypted = AESGCM(data_key.reveal()).encrypt(iv, value.reveal(), None)
    else:
        encrypted = _counter_mode(data_key, iv, value.reveal())
    return Envelope(key_id, encrypted_key, encrypted, wrap_type, iv, provider, provider_settings)


def decrypt(envelope: Envelope, data_key: Secret) -> Secret:
    """The value of an envelope. With A256CTR a wrong data key yields other bytes, and no error.

    Raises:
        ValueRefused: the data key does not open it.
    """
    if envelope.wrap_type is WrapType.A256CTR:
        return Secret(_counter_mode(data_key, envelope.iv, envelope.encrypted_data))
    try:
        return Secret(AESGCM(data_key.reveal()).decrypt(envelope.iv, envelope.encrypted_data, None))
    except InvalidTag:
        raise ValueRefused("the data key does not open encrypted_data: another key, or changed") from None


def _counter_mode(key: Secret, counter: bytes, data: bytes) -> bytes:
    stream = Cipher(algorithms.AES256(key.reveal()), modes.CTR(counter)).encryptor()
    return stream.update(data) + stream.finalize()
