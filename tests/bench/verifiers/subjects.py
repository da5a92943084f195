"""What is measured: for each TEE a verifier with new evidence in every round, and the floor under it.

The floor is what no verifier can leave out: the bare checks of the signatures, or of the MAC, that are new in every
evidence, by the library that the verifier uses, over as many octets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Final

import dcap_qvl
import gmalg
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from kbs.attestation.hygon import sm2
from kbs.attestation.model import Binding, Evidence, Verifier, VerifierOptions
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx
from kbs.client.attesters.cca import SoftwareCca
from kbs.client.attesters.csv import SoftwareCsv
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.client.attesters.se import SoftwareSe
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.tpm import SoftwareTpm
from tests.fakes.case_files import FACTORIES

Step = Callable[[], object]

AT: Final = datetime(2026, 6, 15, 12, tzinfo=UTC)
INIT_DATA: Final = hashlib.sha256(b"init data").digest()
EVIDENCES: Final = 16  # pieces of new evidence that rounds take in turn
_USER: Final = b"1234567812345678"
_SIGNED: Final = os.urandom(1024)


@dataclass(frozen=True, slots=True)
class Target:
    """At most `times` the floor and `plus` µs."""

    times: float
    plus: float = 0.0

    def limit(self, floor: float) -> float:
        """The most, in µs."""
        return self.times * floor + self.plus

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.times:g} x" + (f" + {self.plus:g} µs" if self.plus else "")


@dataclass(frozen=True, slots=True)
class Subject:
    """One row. `floor`: names of `floors`, as often as each is needed. `other`: the same by `dcap-qvl`."""

    name: str
    verify: Step
    floor: tuple[str, ...]
    target: Target | None = None
    other: Step | None = None


def subjects() -> list[Subject]:
    """Every CPU TEE. TDX twice: as `dcap-qvl` sees it, and with the event log that guests send."""
    snp = SoftwareSnp()
    vcek = snp.certificate()
    tdx, sgx = SoftwareTdx(), SoftwareSgx()
    dcap = Target(3.0)
    quotes = _evidences(lambda data: tdx.evidence(data, INIT_DATA, log=None))
    enclaves = _evidences(lambda data: sgx.evidence(data, INIT_DATA))
    return [
        Subject(
            "snp",
            _steps(snp, _evidences(lambda data: snp.evidence(data, INIT_DATA, vek=vcek))),
            ("P-384",),
            Target(1.2, 50.0),
        ),
        Subject("az-snp-vtpm", _of(SoftwareAzSnp()), ("P-384", "RSA-2048")),
        Subject("tdx", _steps(tdx, quotes), ("P-256",), dcap, _dcap_qvl(tdx, "TDX", quotes)),
        Subject("tdx, event log", _of(tdx), ("P-256",), dcap),
        Subject("sgx", _steps(sgx, enclaves), ("P-256",), dcap, _dcap_qvl(sgx, "SGX", enclaves)),
        Subject("az-tdx-vtpm", _of(SoftwareAzTdx()), ("P-256", "RSA-2048")),
        Subject("tpm", _of(SoftwareTpm()), ("RSA-2048",)),
        Subject("cca", _of(SoftwareCca()), ("P-384",)),
        Subject("csv", _of(SoftwareCsv(version=3)), ("SM2",)),
        Subject("se", _of(SoftwareSe()), ("HMAC-SHA-512",)),
        Subject("nitro", _of(SoftwareNitro(clock=lambda: AT)), ("P-384",)),
    ]


def floors() -> dict[str, Step]:
    """One bare check each, right signature, key loaded before."""
    sm2_key = gmalg.SM2().generate_keypair()
    r, s = gmalg.SM2(sk=sm2_key[0], uid=_USER, pk=sm2_key[1]).sign(_SIGNED)
    signature = sm2.Signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    x, y = (int.from_bytes(part, "big") for part in (sm2_key[1][1:33], sm2_key[1][33:]))
    sm2_public = sm2.public_key(x, y, _USER)
    return {
        "P-256": _ecdsa(ec.SECP256R1(), hashes.SHA256()),
        "P-384": _ecdsa(ec.SECP384R1(), hashes.SHA384()),
        "RSA-2048": _rsa(),
        "SM2": lambda: sm2.is_signed_by(_SIGNED, signature, sm2_public),
        "HMAC-SHA-512": lambda: hmac.digest(_USER, _SIGNED, "sha512"),
    }


def _ecdsa(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Step:
    key = ec.generate_private_key(curve)
    algorithm = ec.ECDSA(digest)
    signature, public = key.sign(_SIGNED, algorithm), key.public_key()
    return lambda: public.verify(signature, _SIGNED, algorithm)


def _rsa() -> Step:
    key = rsa.generate_private_key(65537, 2048)
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    signature, public = key.sign(_SIGNED, scheme, digest), key.public_key()
    return lambda: public.verify(signature, _SIGNED, scheme, digest)


def _evidences(make: Callable[[bytes], Any]) -> list[tuple[bytes, Any]]:
    digests = [hashlib.sha384(number.to_bytes(2, "big")).digest() for number in range(EVIDENCES)]
    return [(digest, make(digest)) for digest in digests]


def _of(attester: SoftwareAttester) -> Step:
    return _steps(attester, _evidences(lambda data: attester.evidence(data, INIT_DATA)))


def _steps(attester: SoftwareAttester, bodies: list[tuple[bytes, Any]]) -> Step:
    """`needs` and `verify`, as the pipeline calls them, on decoded JSON; another evidence each time."""
    verifier: Verifier = FACTORIES[attester.tee](VerifierOptions(attester.options, attester.anchors))
    given = verifier.endorsements_from(Evidence(attester.tee, bodies[0][1]), attester.endorsements)
    prepared = cycle([(body, Binding(digest, INIT_DATA)) for digest, body in bodies])

    def step() -> object:
        body, binding = next(prepared)
        evidence = Evidence(attester.tee, body)
        verifier.needs(evidence)
        return verifier.verify(evidence, given, binding, AT)

    return step


def _dcap_qvl(attester: SoftwareTdx | SoftwareSgx, tee: str, bodies: list[tuple[bytes, Any]]) -> Step:
    """The same quotes by `dcap-qvl`: in Rust, and nothing remembered from one quote to the next."""
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(attester.intel.collateral(tee)))
    root = base64.b64decode(attester.anchors["trust_anchor_der"])
    quotes = cycle([base64.b64decode(body["quote"]) for _, body in bodies])
    at = int(AT.timestamp())
    return lambda: dcap_qvl.verify_with_root_ca(next(quotes), collateral, root, at)
