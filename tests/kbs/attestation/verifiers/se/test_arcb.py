"""The request control block: the published one byte for byte, and who can read one of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.verifiers.se.arcb import (
    MAX_HOST_KEYS,
    SECRET_OCTETS,
    RequestSecrets,
    build_arcb,
    coordinates,
    public_host_key_hash,
)
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.se import RequestUnreadable, SoftwareSe
from kbs.client.attesters.test_root import TestRoot

VECTORS = Path(__file__).parents[4] / "vectors" / "se"
CUSTOMER = ec.derive_private_key(int.from_bytes((VECTORS / "private_cust.bin").read_bytes(), "big"), ec.SECP521R1())
PUBLISHED = RequestSecrets(b"\x77" * 64, b"\xab" * 16, b"\x17" * 32, b"\x55" * 12, CUSTOMER)


def host_key() -> ec.EllipticCurvePublicKey:
    key = load_certificate((VECTORS / "host.pem.crt").read_bytes()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def fresh() -> RequestSecrets:
    return RequestSecrets.cut(os.urandom(SECRET_OCTETS), ec.generate_private_key(ec.SECP521R1()))


def test_published_request_is_built_byte_for_byte() -> None:
    assert build_arcb(PUBLISHED, [host_key()]) == (VECTORS / "arcb.bin").read_bytes()
    assert coordinates(CUSTOMER.public_key()) == (VECTORS / "public_cust.bin").read_bytes()


def test_published_request_holds_the_hash_of_its_host_key() -> None:
    assert (VECTORS / "arcb.bin").read_bytes()[0xE0:0x100] == public_host_key_hash(host_key())


def test_every_machine_with_a_slot_reads_the_same_secrets() -> None:
    root = TestRoot()
    machines = [SoftwareSe(root, machine=name) for name in ("one", "two", "three")]
    secrets = fresh()
    request = build_arcb(secrets, [each.host_key.public_key() for each in machines])
    assert len(request) == 0xE0 + 3 * 80 + 80 + 16
    assert {each.open_request(request) for each in machines} == {(secrets.measurement_key, secrets.nonce)}
    with pytest.raises(RequestUnreadable):
        SoftwareSe(root, machine="four").open_request(request)


def test_a_machine_notices_every_changed_byte() -> None:
    machine = SoftwareSe()
    request = build_arcb(fresh(), [machine.host_key.public_key()])
    for at in range(0x28, len(request), 7):
        if 0x40 <= at < 0xE0:
            continue  # another point, or none: the test machine's library says so in its own way
        changed = bytearray(request)
        changed[at] ^= 1
        with pytest.raises(RequestUnreadable):
            machine.open_request(bytes(changed))


def test_two_requests_share_nothing() -> None:
    machine = SoftwareSe()
    one, two = (build_arcb(fresh(), [machine.host_key.public_key()]) for _ in range(2))
    for part in (slice(0x10, 0x1C), slice(0x40, 0xE0), slice(0x100, 0x130), slice(0x130, None)):
        assert one[part] != two[part]


def test_the_most_slots_fit_in_their_byte() -> None:
    machine = SoftwareSe()
    request = build_arcb(fresh(), [machine.host_key.public_key()] * MAX_HOST_KEYS)
    assert request[0x27] == MAX_HOST_KEYS < 256


def test_secrets_are_not_shown() -> None:
    text = repr(fresh())
    assert "measurement_key" not in text
    assert "protection_key" not in text
    assert "nonce" not in text
