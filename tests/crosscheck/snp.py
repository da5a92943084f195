"""Questions about SNP reports: published cases, real ones, damaged ones, and ones with wrong content signed well."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.amd import CrlRef, TcbVersion
from kbs.attestation.endorsements.amd_roots import AmdRoots, pinned_roots, roots_from_anchors
from kbs.attestation.model import Endorsements
from kbs.attestation.sev.checks import check_form
from kbs.attestation.sev.report import parse
from kbs.attestation.sev.verification import ReportVerifier, Vek
from kbs.attestation.verifiers.snp.evidence import report_bytes
from kbs.client.attesters.snp import CSP_ID, SoftwareSnp, Validities, default_tcb
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import EvidenceRejected
from tests.attacks.test_evidence_mutations import damaged
from tests.crosscheck.opinions import Opinion, opinion_of
from tests.kbs.attestation.dcap.quotes import VECTORS

AT: Final = datetime(2026, 6, 15, 12, tzinfo=UTC)
KINDS: Final = ("Milan-vcek", "Genoa-vcek", "Milan-vlek")
AMD: Final = "Advanced Micro Devices"
_WINDOW: Final = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 15, 12, tzinfo=UTC))
_REAL: Final = {  # certificate beside the report
    "milan_v2": "milan_v2.vcek.der", "milan_v2 wrong": "milan_v2.wrong-vcek-1.der", "milan_v3": "milan_v3.vcek.der",
    "virtee_milan_v2": "virtee_milan_v2.vcek.der", "aci_milan_v2": "aci_milan_v2.vcek.der",
    "gce_milan_v2_debug": "gce_milan_v2_debug.vcek.der", "turin_v5": "turin_v5.vcek.der",
    "turin_v5 other": "vcek_turin.der", "milan_v3_vlek_vmpl1": "milan_v3_vlek_vmpl1.vlek.der",
}  # fmt: skip
_SPARE: Final = dict.fromkeys(("3.4", "3.5", "3.6", "3.7"), b"\x02\x01\x00")  # in all that AMD issues
_RESERVED: Final = (0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F)


@dataclass(frozen=True, slots=True)
class SnpQuestion:
    """A report with everything that it takes to verify it; certificates and list in DER."""

    report: bytes
    vek: bytes
    roots: AmdRoots
    crl: bytes | None
    at: datetime

    def as_asked(self) -> dict[str, Any]:
        """For the program."""
        chain = {"ark": self.roots.ark, "ask": self.roots.ask, "asvk": self.roots.asvk}
        ders = {role: each.public_bytes(Encoding.DER) for role, each in chain.items() if each is not None}
        return {
            "report": self.report, "vek": self.vek, "crl": self.crl or b"", "product": str(self.roots.product),
            "now": self.at, **ders,
        }  # fmt: skip


def ours(question: SnpQuestion) -> Opinion:
    """Accepted or not, by our core; the kind of key and the product of version 2 are taken from report and roots."""

    def verify() -> None:
        report = parse(question.report, question.roots.product)
        kind = check_form(report)
        items = {} if question.crl is None else {CrlRef(report.product, kind).name: question.crl}
        _verifier(question.roots.ark).verify(report, Vek(kind, question.vek), Endorsements(items), question.at)

    return opinion_of(verify)


_ROOTS: Final[dict[bytes, AmdRoots]] = {}


@cache
def _verifier(ark: x509.Certificate) -> ReportVerifier:
    roots = _ROOTS[ark.public_bytes(Encoding.DER)]
    return ReportVerifier({roots.product: roots}, vlek_csp_ids=frozenset({CSP_ID, "CN=cc-us-east-2.amazonaws.com"}))


def _known(roots: AmdRoots) -> AmdRoots:
    """The same object for a root every time: verifiers remember by it."""
    return _ROOTS.setdefault(roots.ark.public_bytes(Encoding.DER), roots)


def _from_anchors(anchors: Mapping[str, Any]) -> AmdRoots:
    (roots,) = roots_from_anchors(anchors).values()
    return _known(roots)


def published() -> Iterator[tuple[str, SnpQuestion]]:
    """Cases of the vectors whose report can be spelt in bytes and that bring a certificate."""
    for path in sorted((VECTORS / "snp/synthetic").glob("*.json")):
        case = json.loads(path.read_text())
        evidence, roots = case["evidence"], _from_anchors(case["anchors"])
        try:
            raw = report_bytes(evidence["attestation_report"], roots.product)
        except EvidenceRejected:
            continue
        veks = [each for each in evidence["cert_chain"] or () if each["cert_type"] in ("VCEK", "VLEK")]
        if veks:
            crl = base64.b64decode(case["endorsements"]["crl"]) if "crl" in case["endorsements"] else None
            at = datetime.fromisoformat(case["now"])
            yield path.stem, SnpQuestion(raw, bytes(veks[0]["data"]), roots, crl, at)


def real() -> Iterator[tuple[str, SnpQuestion]]:
    """Real reports under AMD's roots, without a list; and each under every other product's."""
    pinned = {product: _known(roots) for product, roots in pinned_roots().items()}
    for name, certificate in _REAL.items():
        raw = (VECTORS / f"snp/{name.split()[0]}.report.bin").read_bytes()
        vek = (VECTORS / "snp" / certificate).read_bytes()
        for product, roots in pinned.items():
            at = datetime(2025, 6, 15, 12, tzinfo=UTC) if "vlek" in name else datetime(2026, 7, 15, 12, tzinfo=UTC)
            yield f"{name} as {product}", SnpQuestion(raw, vek, roots, None, at)


@cache
def chip(kind: str, validities: Validities | None = None, label: str = "one") -> SoftwareSnp:
    """A software attester by product and kind of key."""
    product, key = kind.split("-")
    root = TestRoot(label=label)
    return SoftwareSnp(root, product=product, kind=key, validities=validities, organization=AMD)


def question_of(
    made: SoftwareSnp,
    report: Mapping[str, Any] | None = None,
    vek: Mapping[str, Any] | None = None,
    crl: Mapping[str, Any] | None = None,
) -> SnpQuestion:
    """The attester's report, certificate and list with changes."""
    raw = made.report(**({"report_data": b"challenge"} | dict(report or {})))
    given = dict(crl or {})
    listed = None if given.pop("absent", False) else made.crl(**given)
    certificate = dict(vek or {})
    certificate["replaced"] = _SPARE | certificate.get("replaced", {})
    return SnpQuestion(raw, made.certificate(**certificate), _from_anchors(made.anchors), listed, AT)


def witnesses() -> Iterator[tuple[str, SnpQuestion]]:
    """One for each difference that no vector shows."""
    milan, genoa, vlek = (chip(kind) for kind in KINDS)
    yield "last second", question_of(milan, crl={"validity": _WINDOW})
    later = (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
    yield "list of the future", question_of(milan, crl={"validity": later})
    yield "bytes behind the list", replace(question_of(milan), crl=milan.crl() + b"\0")
    yield "revoked ARK", question_of(milan, crl={"revoked": [0x10000]})
    yield "revoked VCEK", question_of(milan, crl={"revoked": [0]})
    yield "revoked ASVK", question_of(vlek, crl={"revoked": [0x10101]})
    yield "revoked ASK over a VLEK", question_of(vlek, crl={"revoked": [0x10001]})
    yield "mitigations", question_of(milan, {"current_mit_vector": 2})
    yield "masked chip key", question_of(milan, {"key_info": 2})
    yield "VMPL 4", question_of(milan, {"vmpl": 4})
    yield "author key", question_of(milan, {"author_key_digest": b"\1" * 48})
    yield "another product's name", question_of(milan, vek={"product_name": "Genoa"})
    yield "chip under a VLEK", question_of(vlek, {"chip_id": b"\1" * 64})
    yield "another provider", question_of(vlek, vek={"csp_id": "CN=nobody"})
    yield "stepping 16", question_of(milan, {"cpuid_step": 16})
    yield "model 4", question_of(milan, {"cpuid_mod_id": 4})
    yield "Genoa in version 2", question_of(genoa, {"version": 2})


def mutations(kind: str, count: int, seed: str) -> Iterator[tuple[str, SnpQuestion]]:
    """Half of them damaged after signing, half signed by a chip, or certified by AMD, with wrong content."""
    random = Random(f"{seed} {kind}")
    good, other = question_of(chip(kind)), question_of(chip(kind, label="another"), {"measurement": bytes(48)})
    for number in range(count):
        if number % 4 == 1:
            done, question = _damaged(good, other, random)
        else:
            done, question = _wrong(kind, random)
        yield f"{number}: {done}", question


def _damaged(good: SnpQuestion, other: SnpQuestion, random: Random) -> tuple[str, SnpQuestion]:
    name = random.choice(("report", "report", "vek", "crl"))
    done, raw = "of the other", getattr(other, name)
    if random.random() < 0.9:
        done, raw = damaged(getattr(good, name), raw, random)
    parts = {"report": good.report, "vek": good.vek, "crl": good.crl} | {name: raw}
    return f"{name} {done}", SnpQuestion(roots=good.roots, at=good.at, **parts)


@dataclass(slots=True)
class _Order:
    report: dict[str, Any]
    vek: dict[str, Any]
    crl: dict[str, Any]
    validities: Validities | None = None
    at: datetime = AT


def _wrong(kind: str, random: Random) -> tuple[str, SnpQuestion]:
    order = _Order({}, {}, {})
    done = " and ".join(random.choice(WRONGS)(kind, order, random) for _ in range(random.choice((1, 1, 2))))
    found = question_of(chip(kind, order.validities), order.report, order.vek, order.crl)
    return done, replace(found, at=order.at)


def _field(kind: str, order: _Order, random: Random) -> str:
    sizes = {"report_data": 64, "measurement": 48, "host_data": 32, "chip_id": 64, "author_key_digest": 48}
    name = random.choice(
        ("version", "policy", "policy", "vmpl", "sig_algo", "plat_info", "key_info", "key_info", "cpuid_fam_id",
         "cpuid_mod_id", "cpuid_step", "launch_mit_vector", "current_mit_vector", "guest_svn", *sizes)
    )  # fmt: skip
    value: Any
    if name in sizes:
        value = (1 << random.randrange(8 * sizes[name])).to_bytes(sizes[name], "little")
    elif name == "version":
        value = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 1 << 31))
    elif name == "policy":
        value = 0x30000 ^ (1 << random.randrange(64))
    else:
        width = 8 if name.startswith("cpuid") else 64 if name.endswith("vector") or name == "plat_info" else 32
        value = random.choice((0, 1, 2, 3, 4, 7 << 2, 1 << random.randrange(width), (1 << width) - 1)) % (1 << width)
    order.report[name] = value
    return f"{name} {value!r}"


def _tcb(kind: str, order: _Order, random: Random) -> str:
    good = default_tcb(kind.split("-")[0])
    part = random.choice(("bootloader", "tee", "snp", "microcode"))
    made: TcbVersion = replace(good, **{part: max(0, min(255, getattr(good, part) + random.choice((-1, 1, 30))))})
    names = random.sample(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb", "vek"), random.randint(1, 3))
    for name in names:
        if name == "vek":
            order.vek["tcb"] = made
        else:
            order.report[name] = made
    return f"{part} {getattr(made, part)} in {names}"


def _firmware(kind: str, order: _Order, random: Random) -> str:
    name = random.choice(("current", "committed"))
    order.report[name] = (1, 55, 41 + random.choice((-1, 1)))
    return f"{name} {order.report[name]}"


def _reserved(kind: str, order: _Order, random: Random) -> str:
    offset = random.choice(_RESERVED)
    order.report["reserved"] = {offset: 1 << random.randrange(8)}
    return f"reserved {offset:#x}"


def _certificate(kind: str, order: _Order, random: Random) -> str:
    made = chip(kind)
    change: dict[str, Any] = random.choice(
        (
            {"hwid": bytes(64)}, {"hwid": made.chip_id[:-1]}, {"hwid": b"\x04\x40" + made.chip_id},
            {"product_name": "Milan"}, {"product_name": "Genoa"}, {"product_name": "Turin"},
            {"product_name": "Milan-B1"}, {"product_name": "Naples"}, {"csp_id": "CN=nobody"},
            {"common_name": "SEV-VLEK"},
            {"common_name": "SEV-VCEK"}, {"common_name": "SEV"},
            {"issuer_key": chip(kind, label="another").root.rsa("x")},
            {"key": ec.generate_private_key(ec.SECP256R1()).public_key()}, {"salt": 20}, {"salt": 0},
            {"key": made.root.rsa("snp-ask").public_key()},
            *({"without": [part]} for part in ("1", "2", "3.1", "3.2", "3.3", "3.4", "3.8", "4", "5")),
            *({"replaced": {part: value}} for part in ("1", "3.1", "3.4", "3.8")
              for value in (b"\x02\x01\x01", b"\x02\x01\xff", b"\x02\x02\x01\x00", b"\x04\x01\x04", b"")),
            {"replaced": {"3.9": b"\x02\x01\x01"}}, {"replaced": {"3.4": b"\x02\x01\x00", "3.5": b"\x02\x01\x01"}},
            {"extra": [(x509.BasicConstraints(ca=True, path_length=None), True)]},
            {"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]},
        )
    )  # fmt: skip
    order.vek |= change
    return f"certificate {change}"


def _list(kind: str, order: _Order, random: Random) -> str:
    change: dict[str, Any] = random.choice(
        (
            {"revoked": [0x10000]}, {"revoked": [0x10001]}, {"revoked": [0x10101]}, {"revoked": [0]}, {"revoked": [7]},
            {"signer": chip(kind).root.rsa("snp-ask")}, {"absent": True}, {"validity": _WINDOW},
            {"validity": (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))},
            {"validity": (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))},
        )
    )  # fmt: skip
    order.crl |= change
    return f"list {change}"


def _moment(kind: str, order: _Order, random: Random) -> str:
    part = random.choice(("ark", "intermediate", "vek"))
    order.validities = replace(Validities(), **{part: _WINDOW})
    order.at = random.choice(
        (_WINDOW[0], _WINDOW[1], datetime(2026, 6, 15, 12, 0, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC))
    )
    return f"{part} at {order.at}"


def _signer(kind: str, order: _Order, random: Random) -> str:
    if random.random() < 0.3:
        order.report["signer"] = ec.generate_private_key(ec.SECP384R1())
        return "another signer"
    order.report["flip"] = random.randrange(0x4A0)
    return f"flip {order.report['flip']:#x}"


Wrong = Callable[[str, _Order, Random], str]
WRONGS: Final[tuple[Wrong, ...]] = (
    _field, _field, _field, _tcb, _tcb, _firmware, _reserved, _certificate, _certificate, _list, _moment, _signer,
)  # fmt: skip
