"""Enrolment as an operator meets it: a file named in the settings, and a start that fails with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.client.attesters.tpm import SoftwareTpm
from kbs.client.errors import AttestationRefused
from kbs.errors import ConfigInvalid
from tests.fakes.broker import BrokerUnderTest, Edge

TPM = {"KBS__ATTESTATION__TEES": '["tpm"]'}


def start(tmp_path: Path, **settings: str) -> BrokerUnderTest:
    return BrokerUnderTest(tmp_path / "data", Edge.ASGI, settings={**TPM, **settings})


def test_nobody_enrolled(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"no attestation key is enrolled.*attestation\.anchors\.tpm"):
        start(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "attestation.anchors.tpm: .*aks.json: No such file"),
        (b"", "attestation.anchors.tpm: .*aks.json"),
        (b"-----BEGIN PUBLIC KEY-----", "attestation.anchors.tpm: .*aks.json"),
        (b'{"trusted_aks": [], "trusted_aks": []}', "attestation.anchors.tpm: .*aks.json"),
        (b"[]", "attestation.anchors.tpm: .*aks.json is not a JSON object"),
        (b"{}", "no attestation key is enrolled"),
        (b'{"trusted_aks": []}', "no attestation key is enrolled"),
        (b'{"trusted_aks": ["AAAA"]}', r"trusted_aks\[0\]"),
        (b'{"aks": []}', "unknown .'aks'.; known are trusted_aks"),
    ],
)
def test_a_file_that_enrols_nobody(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "aks.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=why):
        start(tmp_path, KBS__ATTESTATION__ANCHORS__TPM=str(file))


def test_an_enrolled_key_attests_and_a_stranger_does_not(tmp_path: Path) -> None:
    enrolled, stranger = SoftwareTpm(), SoftwareTpm(scheme="ecdsa")
    (tmp_path / "aks.json").write_text(json.dumps(enrolled.anchors))
    broker = start(tmp_path, KBS__ATTESTATION__ANCHORS__TPM="../aks.json")  # relative to the data directory
    try:
        assert broker.guest(tee="tpm", attester=enrolled).attest()
        with pytest.raises(AttestationRefused, match="not enrolled"):
            broker.guest(tee="tpm", attester=stranger).attest()
    finally:
        broker.close()
