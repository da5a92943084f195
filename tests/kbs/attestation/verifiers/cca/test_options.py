"""Settings of the CCA verifier: enrolled keys and approved firmware."""

from __future__ import annotations

from typing import Any

import pytest

from kbs.attestation.model import VerifierOptions
from kbs.attestation.verifiers import cca
from kbs.attestation.verifiers.cca.options import read_anchors, read_options
from kbs.client.attesters.cca import SoftwareCca, public_jwk
from kbs.errors import ConfigInvalid

ATTESTER = SoftwareCca()
JWK = public_jwk(ATTESTER.cpak)
ENTRY = {
    "implementation-id": ATTESTER.implementation_id.hex(),
    "instance-id": ATTESTER.instance_id.hex(),
    "pkey": JWK,
}
COMPONENT = {"type": "BL", "measurement": "00" * 32, "signer_id": "11" * 48}


def test_nothing_is_enrolled_by_default() -> None:
    assert dict(read_options({}).platform_keys) == {}
    assert read_options({}).sw_components is None


def test_platforms() -> None:
    other = {**ENTRY, "instance-id": "01" + "22" * 32}
    name = (ATTESTER.implementation_id, ATTESTER.instance_id)
    for keys in (
        read_options({"cca_trust_anchors": [ENTRY, other]}).platform_keys,
        read_anchors({"trust_anchors": [other, ENTRY]}),
        read_anchors(ATTESTER.anchors),
    ):
        assert keys[name] == ATTESTER.cpak.public_key()
    assert len(read_anchors({"trust_anchors": [other, ENTRY]})) == 2
    assert read_anchors({"trust_anchors": [{**ENTRY, "pkey": {**JWK, "kid": "x", "use": "sig"}}]})


def test_components() -> None:
    assert len(read_options({"cca_sw_components": [COMPONENT, COMPONENT]}).sw_components or ()) == 1
    assert read_options({"cca_sw_components": []}).sw_components == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"pkey": None},
        {"pkey": {}},
        {"pkey": {**JWK, "kty": "RSA"}},
        {"pkey": {**JWK, "d": "AAAA"}},
        {"pkey": {**JWK, "crv": "P-256"}},
        {"pkey": {**JWK, "crv": "secp256k1"}},
        {"pkey": {**JWK, "crv": ["P-384"]}},
        {"pkey": {**JWK, "x": JWK["y"]}},
        {"pkey": {**JWK, "x": JWK["x"] + "="}},
        {"pkey": {**JWK, "x": 5}},
        {"pkey": {name: value for name, value in JWK.items() if name != "y"}},
        {"implementation-id": "00"},
        {"implementation-id": "zz" * 32},
        {"implementation-id": None},
        {"instance-id": "02" + "22" * 32},
        {"instance-id": "01" + "22" * 31},
        {"instance-id": ""},
        {"extra": 1},
    ],
)
def test_unusable_platforms(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        read_options({"cca_trust_anchors": [{**ENTRY, **changes}]})


@pytest.mark.parametrize(
    "changes",
    [{"type": 1}, {"measurement": "00"}, {"measurement": None}, {"signer_id": "x"}, {"signer_id": ""}, {"extra": 1}],
)
def test_unusable_components(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        read_options({"cca_sw_components": [{**COMPONENT, **changes}]})


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1},
        {"cca_trust_anchors": {}},
        {"cca_trust_anchors": "x"},
        {"cca_trust_anchors": [ENTRY, ENTRY]},
        {"cca_trust_anchors": ["x"]},
        {"cca_sw_components": {}},
        {"cca_sw_components": [[]]},
        {"cca_sw_components": [{"type": "BL"}]},
    ],
)
def test_unusable_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        cca.build(VerifierOptions(options))


@pytest.mark.parametrize("missing", ["cpak", "implementation_id", "instance_id"])
def test_anchors_need_every_member(missing: str) -> None:
    with pytest.raises(ConfigInvalid):
        cca.build(VerifierOptions({}, {name: value for name, value in ATTESTER.anchors.items() if name != missing}))
    with pytest.raises(ConfigInvalid):
        cca.build(VerifierOptions({}, {**ATTESTER.anchors, "trust_anchors": []}))
