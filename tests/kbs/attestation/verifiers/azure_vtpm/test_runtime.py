"""Runtime data: exactly one usable attestation key, and members of the right types."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.verifiers.azure_vtpm.runtime import parse_runtime_data
from kbs.client.attesters.azure_vtpm import SoftwareVtpm
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import EvidenceMalformed, EvidenceRejected

VTPM = SoftwareVtpm(TestRoot())
(AK, EK) = VTPM.keys()


def modulus(bits: int) -> str:
    number = TestRoot().rsa(f"{bits} bits", bits).public_key().public_numbers().n
    return base64.urlsafe_b64encode(number.to_bytes(bits // 8, "big")).rstrip(b"=").decode()


def test_what_is_read() -> None:
    found = parse_runtime_data(VTPM.runtime_data(b"\xab" * 48))
    assert isinstance(found.attestation_key, rsa.RSAPublicKey)
    assert found.attestation_key.public_numbers() == VTPM.ak.public_key().public_numbers()
    assert found.user_data == b"\xab" * 48 + bytes(16)
    assert found.secure_boot is True
    assert found.configuration["tpm-enabled"] is True


def test_what_may_be_absent() -> None:
    found = parse_runtime_data(VTPM.runtime_data(None, configuration={}))
    assert (found.user_data, found.secure_boot) == (None, None)
    assert parse_runtime_data(VTPM.runtime_data("", secure_boot=False)).secure_boot is False
    assert parse_runtime_data(json.dumps({"keys": [AK]}).encode()).configuration == {}
    assert parse_runtime_data(VTPM.runtime_data("aB" * 64, later={"members": [1]})).user_data == b"\xab" * 64


@pytest.mark.parametrize("bits", [3072, 4096])
def test_larger_keys(bits: int) -> None:
    found = parse_runtime_data(VTPM.runtime_data(b"", keys=[{**AK, "n": modulus(bits)}]))
    assert isinstance(found.attestation_key, rsa.RSAPublicKey)
    assert found.attestation_key.key_size == bits


KEYS: dict[str, Any] = {
    "none": [],
    "no list": {},
    "no objects": ["HCLAkPub"],
    "only another": [EK],
    "two": [AK, EK, AK],
    "too many": [AK] + [EK] * 16,
    "for another use": [{**AK, "key_ops": ["encrypt"]}],
    "for more than signing": [{**AK, "key_ops": ["sign", "decrypt"]}],
    "no use": [{**AK, "key_ops": None}],
    "elliptic": [{**AK, "kty": "EC"}],
    "exponent 3": [{**AK, "e": "Aw"}],
    "exponent 65537 with a zero": [{**AK, "e": "AAEAAQ"}],
    "modulus absent": [{name: value for name, value in AK.items() if name != "n"}],
    "modulus a number": [{**AK, "n": 1}],
    "modulus empty": [{**AK, "n": ""}],
    "modulus not base64url": [{**AK, "n": AK["n"].replace("A", "+")}],
    "modulus cut": [{**AK, "n": AK["n"][:341]}],
    "modulus of 1024 bits": [{**AK, "n": modulus(1024)}],
    "modulus too long": [{**AK, "n": "A" * 1025}],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_that_are_refused(keys: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_runtime_data(VTPM.runtime_data(b"", keys=keys))


@pytest.mark.parametrize("user_data", ["x", "0", "0x00", "00 00", "zz", "00" * 65, "\u0660\u0660"])
def test_user_data_is_hex(user_data: str) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_runtime_data(VTPM.runtime_data(user_data))


@pytest.mark.parametrize(
    "configuration", [[], "x", 1, {"secure-boot": "true"}, {"secure-boot": 1}, {"secure-boot": None}]
)
def test_configuration_has_the_right_types(configuration: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_runtime_data(VTPM.runtime_data(b"", configuration=configuration))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{", b'{"keys":[],"keys":[]}', b"\xff", b"{} ", VTPM.runtime_data(b"") + b"\0",
            b'{"keys":' + b"[" * 5000]
)  # fmt: skip
def test_other_texts_are_refused(raw: bytes) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_runtime_data(raw)


@given(st.binary(max_size=40))
def test_any_octets_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(EvidenceRejected):
        parse_runtime_data(raw)
