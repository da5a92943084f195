"""TPM quotes through `go-attestation`: signature, nonce and PCR values under an attestation key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kbs.attestation.tpm.pcrs import check_pcrs
from kbs.attestation.tpm.quote import check_nonce, parse_quote
from kbs.attestation.tpm.signature import parse_signature, verify_signature
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import SoftwareTpm
from tests.attacks.test_evidence_mutations import damaged
from tests.crosscheck.differences import GO_ATTESTATION
from tests.crosscheck.opinions import Comparison, Opinion, opinion_of
from tests.crosscheck.programs import COUNT, SEED, start
from tests.kbs.attestation.dcap.quotes import VECTORS

NONCE = hashlib.sha256(b"challenge").digest()
SCHEMES = ("rsassa", "ecdsa")


@dataclass(frozen=True, slots=True)
class QuoteQuestion:
    """A quote, who should have signed it, and over what. `ak`: SubjectPublicKeyInfo."""

    ak: bytes
    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]
    nonce: bytes

    def as_asked(self) -> dict[str, Any]:
        """For the program."""
        return {
            "ak": self.ak, "message": self.message, "signature": self.signature, "nonce": self.nonce,
            "pcrs": [value.hex() for value in self.pcrs],
        }  # fmt: skip


def ours(question: QuoteQuestion) -> Opinion:
    """Accepted or not, by our core; remarkable are algorithms that the library does not know for a quote."""

    def verify() -> str:
        quote, signature = parse_quote(question.message), parse_signature(question.signature)
        key: Any = load_der_public_key(question.ak)
        verify_signature(key, signature, question.message)
        check_pcrs(quote, question.pcrs, signature.hash_algorithm)
        check_nonce(quote, question.nonce)
        return f"{signature.scheme.name} with {signature.hash_algorithm.name}"

    found = opinion_of(verify)
    return Opinion(True, found.facts) if found.accepted else found


def question_of(made: SoftwareTpm, nonce: bytes = NONCE, **changes: Any) -> QuoteQuestion:
    """The TPM's quote with changes."""
    return _from_evidence(made.evidence(nonce.ljust(48, b"\0"), **changes), NONCE)


def published() -> Iterator[tuple[str, QuoteQuestion]]:
    """Cases of the vectors, and a real guest's quote. Nonces are what the quote must hold for the first 32 octets."""
    for path in sorted((VECTORS / "tpm/synthetic").glob("*.json")):
        case = json.loads(path.read_text())
        yield path.stem, _from_evidence(case["evidence"], bytes.fromhex(case["report_data"])[:32])
    evidence = json.loads((VECTORS / "tpm/tpm_evidence.json").read_text())
    message = base64.b64decode(evidence["tpm_quote"]["message"])
    yield "real", _from_evidence(evidence, parse_quote(message).extra_data)
    yield "real, another nonce", _from_evidence(evidence, NONCE)


def _from_evidence(body: Any, nonce: bytes) -> QuoteQuestion:
    quote = body["tpm_quote"]
    ak, message, signature = map(base64.b64decode, (body["ak_public"], quote["message"], quote["signature"]))
    return QuoteQuestion(ak, message, signature, tuple(map(bytes.fromhex, quote["pcrs"])), nonce)


def witnesses() -> Iterator[tuple[str, QuoteQuestion]]:
    """Good ones of every scheme, and one for each difference."""
    for scheme in (*SCHEMES, "rsapss"):
        made = SoftwareTpm(scheme=scheme)
        good = question_of(made)
        yield scheme, good
        unknown = good.signature[:2] + b"\0\1" + good.signature[4:]
        yield f"{scheme}, unknown hash", replace(good, signature=unknown)
        yield f"{scheme}, bytes behind the quote", question_of(made, tail=b"\0")
        yield f"{scheme}, bytes behind the signature", replace(good, signature=good.signature + b"\0")
        for algorithm in ("sha384", "sha1"):
            yield f"{scheme} over {algorithm}", question_of(made, signing_hash=algorithm)
        two = [("sha256", range(24)), ("sha256", [0])]
        yield f"{scheme}, selected twice", question_of(made, selections=two)
        yield f"{scheme}, another kind", question_of(made, kind=0x8017)
        yield f"{scheme}, another magic", question_of(made, magic=0xFF544348)
        yield f"{scheme}, flag", question_of(made, clock=(1, 2, 3, 2))
        yield f"{scheme}, one PCR only", question_of(made, selections=[("sha256", [0])])


def mutations(scheme: str, count: int) -> Iterator[tuple[str, QuoteQuestion]]:
    random = Random(f"{SEED} {scheme}")
    made, other = SoftwareTpm(scheme=scheme), SoftwareTpm(TestRoot(label="another"), scheme=scheme)
    good, foreign = question_of(made), question_of(other)
    for number in range(count):
        name = random.choice(("message", "signature", "pcrs", "nonce", "measured"))
        if name == "pcrs":
            index = random.randrange(24)
            done, raw = damaged(good.pcrs[index], foreign.pcrs[index], random)
            yield (
                f"{number}: PCR {index} {done}",
                replace(good, pcrs=(*good.pcrs[:index], raw, *good.pcrs[index + 1 :])),
            )
        elif name == "measured":
            made.measure(random.randrange(8), 0x8, random.randbytes(8))
            yield f"{number}: more measured", question_of(made)
        else:
            done, raw = damaged(getattr(good, name), getattr(foreign, name), random)
            parts = {"message": good.message, "signature": good.signature, "nonce": good.nonce} | {name: raw}
            yield f"{number}: {name} {done}", QuoteQuestion(ak=good.ak, pcrs=good.pcrs, **parts)


def compared(questions: Iterator[tuple[str, QuoteQuestion]]) -> Comparison:
    program = start("tpm")
    comparison = Comparison(GO_ATTESTATION)
    for name, question in questions:
        comparison.add(name, ours(question), program.ask(question.as_asked()))
    program.close()
    comparison.check()
    return comparison


def test_named() -> None:
    compared(chain(published(), witnesses())).check_all_seen()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mutations(scheme: str) -> None:
    found = compared(mutations(scheme, COUNT))
    assert found.refused > COUNT / 2
    assert found.accepted > COUNT / 20
