"""COSE_Sign1 through `go-cose`: the layer under Arm CCA tokens and AWS Nitro documents, signed and damaged.

The libraries for whole CCA tokens and Nitro documents were not to be had where this was written; what such a token says
is checked by our own tests only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from kbs.attestation.cose import read_sign1, verify_sign1
from kbs.client.attesters.cca import sign1
from tests.attacks.test_evidence_mutations import damaged
from tests.crosscheck.differences import GO_COSE
from tests.crosscheck.opinions import Comparison, Opinion, opinion_of
from tests.crosscheck.programs import COUNT, SEED, start
from tests.kbs.attestation.dcap.quotes import VECTORS

KEYS = {
    name: ec.derive_private_key(7, curve)
    for name, curve in (("P-256", ec.SECP256R1()), ("P-384", ec.SECP384R1()), ("P-521", ec.SECP521R1()))
}
NITRO = VECTORS / "nitro/enclave.cbor"


@dataclass(frozen=True, slots=True)
class Sign1Question:
    """A message and who should have signed it. `key`: SubjectPublicKeyInfo."""

    message: bytes
    key: bytes
    tagged: bool

    def as_asked(self) -> dict[str, Any]:
        """For the program."""
        return {"message": self.message, "key": self.key, "tagged": self.tagged}


def ours(question: Sign1Question) -> Opinion:
    """The payload, by our core."""

    def verify() -> dict[str, str]:
        message = read_sign1(question.message, tagged=question.tagged)
        key: Any = load_der_public_key(question.key)
        verify_sign1(message, key)
        return {"payload": message.payload.hex()}

    return opinion_of(verify)


def question_of(curve: str, tag: int | None = 18, key: str = "", **changes: Any) -> Sign1Question:
    """A message signed with the key of a curve. `key`: the curve of another one to verify it with."""
    message = sign1({1: b"claims", 2: [1, 2, 3]}, key=KEYS[curve], tag=tag, **changes)
    return Sign1Question(message, _spki(KEYS[key or curve].public_key()), tagged=tag is not None)


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def real() -> Iterator[tuple[str, Sign1Question]]:
    """A document of AWS Nitro Enclaves with the key of its certificate."""
    raw = NITRO.read_bytes()
    document = cbor2.loads(cbor2.loads(raw)[2])
    yield (
        "nitro",
        Sign1Question(raw, _spki(x509.load_der_x509_certificate(document["certificate"]).public_key()), False),
    )


def cca() -> Iterator[tuple[str, Sign1Question]]:
    """Both messages of each CCA token of the vectors, with the enrolled key and the realm's."""
    for path in sorted((VECTORS / "cca/synthetic").glob("*.json")):
        case = json.loads(path.read_text())
        try:
            token = cbor2.loads(bytes(case["evidence"]["token"])).value
            platform, realm = token[44234], token[44241]
            point = cbor2.loads(cbor2.loads(realm).value[2])[44237]
        except (cbor2.CBORDecodeError, AttributeError, KeyError, TypeError):
            continue  # not a token, which our own tests refuse
        jwk = case["anchors"]["cpak"]
        x, y = (base64.urlsafe_b64decode(jwk[name] + "==") for name in ("x", "y"))
        yield f"{path.stem} platform", Sign1Question(platform, _point(b"\4" + x + y), True)
        if len(point) == 97:  # as in the specification of 2022; later ones have a COSE_Key
            yield f"{path.stem} realm", Sign1Question(realm, _point(point), True)


def _point(encoded: bytes) -> bytes:
    curve = ec.SECP384R1() if len(encoded) == 97 else ec.SECP256R1()
    return _spki(ec.EllipticCurvePublicKey.from_encoded_point(curve, encoded))


HEADERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}), ("key id", {"unprotected": {4: b"id"}}), ("protected key id", {"protected": {4: b"id"}}),
    ("content type", {"protected": {3: "application/cbor"}}), ("text label", {"protected": {"x": 1}}),
    ("critical", {"protected": {2: [4], 4: b"id"}}), ("critical and unknown", {"protected": {2: [99], 99: 1}}),
    ("in both", {"protected": {4: b"a"}, "unprotected": {4: b"a"}}), ("algorithm twice", {"unprotected": {1: -35}}),
    ("detached", {"detached": True}), ("flip", {"flip": 3}), ("ES256", {"algorithm": -7}),
    ("ES384", {"algorithm": -35}), ("ES512", {"algorithm": -36}), ("PS256", {"algorithm": -37}),
    ("EdDSA", {"algorithm": -8}),
    ("unknown algorithm", {"algorithm": 99}), ("unprotected map of text", {"unprotected": {"a": {"b": []}}}),
    ("unprotected is no map", {"unprotected": [1]}), ("certificates", {"unprotected": {33: b"x"}}),
    ("float", {"protected": {"x": 1.5}}), ("IV", {"unprotected": {5: b"iv", 6: b"partial"}}),
)  # fmt: skip


def named() -> Iterator[tuple[str, Sign1Question]]:
    """Every header with every curve, with and without the tag, and what follows a message."""
    for curve in KEYS:
        for name, changes in HEADERS:
            yield f"{curve} {name}", question_of(curve, **changes)
        yield f"{curve} untagged", question_of(curve, None)
        yield f"{curve} untagged, where tagged is expected", replace(question_of(curve, None), tagged=True)
        yield f"{curve} tagged, where untagged is expected", replace(question_of(curve), tagged=False)
        yield f"{curve} another tag", question_of(curve, 17)
        yield f"{curve} key of another curve", question_of(curve, key=next(each for each in KEYS if each != curve))
        good = question_of(curve)
        yield f"{curve} goes on", replace(good, message=good.message + b"\0")
    yield from real()
    yield from cca()


def mutations(count: int) -> Iterator[tuple[str, Sign1Question]]:
    random = Random(f"{SEED} cose")
    good = [*real(), *((curve, question_of(curve)) for curve in KEYS)]
    for number in range(count):
        if number % 4 == 0:
            curve, (name, changes) = random.choice([*KEYS]), random.choice(HEADERS)
            other = random.choice(HEADERS)[1]
            yield f"{number}: {curve} {name} {other}", question_of(curve, **(changes | other))
            continue
        name, one = random.choice(good)
        done, raw = damaged(one.message, random.choice(good)[1].message, random)
        yield f"{number}: {name} {done}", replace(one, message=raw)


def compared(questions: Iterator[tuple[str, Sign1Question]]) -> Comparison:
    program = start("cose")
    comparison = Comparison(GO_COSE)
    for name, question in questions:
        comparison.add(name, ours(question), program.ask(question.as_asked()))
    program.close()
    comparison.check()
    return comparison


def test_named() -> None:
    found = compared(named())
    found.check_all_seen()
    assert found.accepted > 10


def test_mutations() -> None:
    found = compared(mutations(COUNT))
    assert found.refused > COUNT / 2
