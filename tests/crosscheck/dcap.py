"""Questions about DCAP quotes: published cases, real ones, damaged ones, and ones that a wrong platform signed well."""

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
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.dcap import QuoteOptions, QuoteVerifier, TdReport, check_td, parse_quote, pinned_root
from kbs.client.attesters.intel import SERIALS, VALIDITY, IntelValidities, SoftwareIntel
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from tests.attacks.test_evidence_mutations import damaged, mutation, parts_of
from tests.crosscheck.opinions import Opinion, opinion_of
from tests.kbs.attestation.dcap.quotes import TIMES, VECTORS, collateral, quote, time_of

AT: Final = datetime(2026, 6, 15, 12, tzinfo=UTC)
MOMENTS: Final = tuple(
    datetime.fromisoformat(f"{text}Z")
    for text in ("2019-12-31T23:59:59", "2020-01-01T00:00:00", "2049-01-01T00:00:00", "2049-01-01T00:00:01")
)
KINDS: Final = ("tdx-4", "tdx-5", "sgx-3")
_WINDOW: Final = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
_TD_SIZES: Final = {
    "tee_tcb_svn": 16, "mr_seam": 48, "mrsigner_seam": 48, "seam_attributes": 8, "td_attributes": 8, "xfam": 8,
    "mr_td": 48, "mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48, "rtmr_0": 48, "report_data": 64,
}  # fmt: skip
_ENCLAVE_SIZES: Final = {
    "cpu_svn": 16, "misc_select": 4, "reserved1": 12, "flags": 8, "xfrm": 8, "mr_enclave": 32, "reserved2": 32,
    "mr_signer": 32, "reserved3": 32, "isv_prod_id": 2, "isv_svn": 2, "reserved4": 42, "report_data": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DcapQuestion:
    """A quote with everything that it takes to verify it. `root`: DER."""

    quote: bytes
    collateral: Mapping[str, Any]
    root: bytes
    at: datetime


class PublishedIntel(SoftwareIntel):
    """A make-believe Intel whose certificates say where their revocation lists are, as Intel's do."""

    def certificate(self, role: str, *args: Any, extra: Any = (), **changes: Any) -> x509.Certificate:
        """With a distribution point and the key identifiers."""
        point = x509.DistributionPoint([x509.UniformResourceIdentifier("https://lists.example/crl")], None, None, None)
        subject = changes.get("key") or self.keys[role]
        issuer = self.keys[changes["issuer"]]
        return super().certificate(
            role,
            *args,
            extra=[
                *extra,
                (x509.CRLDistributionPoints([point]), False),
                (x509.SubjectKeyIdentifier.from_public_key(subject.public_key()), False),
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False),
            ],
            **changes,
        )


@cache
def vendor() -> TestRoot:
    """Keys of one make-believe Intel."""
    return TestRoot(label="one")


def machine(kind: str, root: TestRoot | None = None, **intel: Any) -> SoftwareTdx | SoftwareSgx:
    """A software attester: `tdx-4`, `tdx-5` or `sgx-3`."""
    tee, version = kind.split("-")
    made: SoftwareTdx | SoftwareSgx
    made = SoftwareTdx(root, version=int(version)) if tee == "tdx" else SoftwareSgx(root, version=int(version))
    made.intel = PublishedIntel(root or vendor(), **({"ca": "processor"} if tee == "sgx" else {}) | intel)
    return made


def question_of(
    made: SoftwareTdx | SoftwareSgx, given: Mapping[str, Any] | None = None, **changes: Any
) -> DcapQuestion:
    """The attester's quote. `given`: changes of its collateral, `changes` of the quote."""
    name = "TDX" if isinstance(made, SoftwareTdx) else "SGX"
    root = made.intel.root_certificate.public_bytes(Encoding.DER)
    bundle = made.intel.collateral(name, **(given or {}))
    return DcapQuestion(made.quote(b"challenge", **changes), bundle, root, AT)


def published() -> Iterator[tuple[str, DcapQuestion]]:
    """Cases of the vectors."""
    for path in sorted([*(VECTORS / "tdx/synthetic").glob("*.json"), *(VECTORS / "sgx/synthetic").glob("*.json")]):
        case = json.loads(path.read_text())
        yield (
            f"{case['tee']}/{path.stem}",
            DcapQuestion(
                base64.b64decode(case["evidence"]["quote"]),
                case["endorsements"]["collateral"],
                base64.b64decode(case["anchors"]["trust_anchor_der"]),
                datetime.fromisoformat(case["now"]),
            ),
        )


def real() -> Iterator[tuple[str, DcapQuestion]]:
    """Real quotes, each with its own collateral, and with that of another platform or month."""
    root = pinned_root().public_bytes(Encoding.DER)
    for name in TIMES:
        for other in TIMES:
            yield f"{name} with {other}", DcapQuestion(quote(name), collateral(other), root, time_of(other))


def witnesses() -> Iterator[tuple[str, DcapQuestion]]:
    """One for each difference that no vector shows."""
    made = machine("tdx-4")
    authority = made.intel.pck_chain()
    module = {"tdxModule": {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8, "x": 1}}
    bad_level = [{"tcb": {"isvsvn": 8}, "tcbDate": "yesterday", "tcbStatus": "UpToDate"}]
    yield "more members", question_of(made, {"tcb_info": module})
    yield "date of a level", question_of(made, {"qe_identity": {"tcbLevels": bad_level}})
    without_svn = made.intel.tcb_info("TDX")["tcbLevels"][:1]
    del without_svn[0]["tcb"]["sgxtcbcomponents"][1]["svn"]
    identities = made.intel.tcb_info("TDX")["tdxModuleIdentities"]
    identities[0]["tcbLevels"][1]["tcb"]["isvsvn"] = 2052
    yield "SVN of a module", question_of(made, {"tcb_info": {"tdxModuleIdentities": identities}})
    yield "absent SVN", question_of(made, {"tcb_info": {"tcbLevels": without_svn}})
    yield "reserved byte", question_of(made, qe={"reserved1": b"\1" + bytes(11)})
    for name in ("tcb_info_issuer_chain", "pck_crl_issuer_chain"):
        good = question_of(made)
        yield f"{name} goes on", replace(good, collateral={**good.collateral, name: good.collateral[name] + "-----BEG"})
    expired = machine("tdx-4", validities=IntelValidities(root=_WINDOW))
    yield "root expired", question_of(expired)
    yield "outer type", question_of(made, outer_type=5)
    yield "reserved TD attribute", question_of(made, fields={"td_attributes": 1 << 28 | 1 << 1})
    yield "migratable", question_of(made, fields={"td_attributes": 1 << 28 | 1 << 29})
    yield "relaunch", question_of(machine("tdx-5"), fields={"tee_tcb_svn": bytes((3, 0, 5)) + bytes(13)})
    good = question_of(made)
    yield "white space", replace(good, collateral={**good.collateral, "tcb_info": good.collateral["tcb_info"] + "\r"})
    later = IntelValidities(pck_crl=(AT.replace(year=2027), AT.replace(year=2028)))
    yield "list of the future", question_of(machine("tdx-4", validities=later))
    yield "profiling", question_of(made, fields={"td_attributes": 1 << 28 | 1 << 4})
    yield "root on its own list", question_of(made, {"revoked": ["root"]})
    yield "mask", question_of(made, {"qe_identity": {"attributesMask": "F0" + "FF" * 7 + "00" * 8}})
    yield "last second", replace(question_of(made), at=MOMENTS[2])
    yield "no authentication data", question_of(made, auth_data=b"")
    yield "chain reversed", question_of(made, chain=authority[::-1])
    yield "chain without root", question_of(made, chain=authority[:2])
    stranger = machine("tdx-4", TestRoot(label="another")).intel.root_certificate
    yield "another root", question_of(made, chain=[*authority[:2], stranger])
    yield "PCESVN", question_of(machine("tdx-4", platform=Platform(pce_svn=65535)))
    yield "SGX in version 4", question_of(machine("sgx-3"), version=4)
    yield "vendor", question_of(made, vendor=bytes(16))
    yield "upper case", question_of(made, {"tcb_info": {"fmspc": "20A06F000000"}})
    yield "bytes behind the list", question_of(made, {"pck_crl": made.intel.crl("platform", VALIDITY).hex() + "00"})


def ours(question: DcapQuestion) -> Opinion:
    """Status and advisories, by our core."""

    def verify() -> tuple[str, list[str]]:
        parsed = parse_quote(question.quote, allow_trailing_bytes=True)
        quotes = _verifier(question.root)
        given = quotes.endorsements_from(parsed, question.collateral)
        verdict = quotes.verify(parsed, given, QuoteOptions(), question.at).evaluation.verdict
        if isinstance(parsed.body, TdReport):
            check_td(parsed.body, ())
        return str(verdict.status), list(verdict.advisories)

    found = opinion_of(verify)
    documents = (question.collateral["tcb_info"], question.collateral["qe_identity"])
    if found.accepted and any(each != each.strip() for each in documents):
        return replace(found, reason="white space")
    return found


@cache
def _verifier(root: bytes) -> QuoteVerifier:
    return QuoteVerifier(x509.load_der_x509_certificate(root))


def mutations(kind: str, count: int, seed: str) -> Iterator[tuple[str, DcapQuestion]]:
    """Half of them damaged after signing, half signed by a platform that is wrong in one or two ways."""
    random = Random(f"{seed} {kind}")
    good = [*_good_ones(kind)]
    for number in range(count):
        if number % 2:
            one, other = random.sample(good, 2)
            done, question = _damaged(one, other, random)
        else:
            done, question = _wrong(kind, random)
        yield f"{number}: {done}", question


def _good_ones(kind: str) -> Iterator[DcapQuestion]:
    yield question_of(machine(kind))
    yield question_of(machine(kind, TestRoot(label="another")))
    names = ("sgx/occlum_quote", "sgx/phala_sgx_quote") if kind == "sgx-3" else ("tdx/tdx_quote_6", "tdx/live_b0c06f")
    if kind != "tdx-5":
        root = pinned_root().public_bytes(Encoding.DER)
        yield from (DcapQuestion(quote(name), collateral(name), root, time_of(name)) for name in names)


def _damaged(good: DcapQuestion, other: DcapQuestion, random: Random) -> tuple[str, DcapQuestion]:
    name = random.choice(["quote", "quote", *good.collateral])
    if name == "quote":
        done, raw = damaged(good.quote, other.quote, random)
        return f"quote {done}", replace(good, quote=raw)
    value, theirs = good.collateral[name], other.collateral[name]
    if random.random() < 0.2:
        return f"{name} of the other", replace(good, collateral={**good.collateral, name: theirs})
    if name.endswith(("crl", "signature")):
        done, raw = damaged(bytes.fromhex(value), bytes.fromhex(theirs), random)
        text = raw.hex()
    else:
        done, raw = damaged(value.encode(), theirs.encode(), random)
        text = raw.decode("ascii", "ignore")
    return f"{name} {done}", replace(good, collateral={**good.collateral, name: text})


@dataclass(slots=True)
class _Order:
    """A machine to be built, and its quote and collateral."""

    intel: dict[str, Any]
    given: dict[str, Any]
    quote: dict[str, Any]
    at: datetime = AT


def _wrong(kind: str, random: Random) -> tuple[str, DcapQuestion]:
    order = _Order({}, {}, {})
    done = " and ".join(random.choice(WRONGS)(kind, order, random) for _ in range(random.choice((1, 1, 2))))
    question = question_of(machine(kind, vendor(), **order.intel), order.given, **order.quote)
    return done, replace(question, at=order.at)


def _platform(kind: str, order: _Order, random: Random) -> str:
    components = [random.choice((10, 10, 10, 9, 7, 6, 3, 1, 0, 255))] * 16
    if random.random() < 0.5:
        components[random.randrange(16)] = random.randrange(16)
    made = Platform(
        components=tuple(components),
        pce_svn=random.choice((16, 16, 15, 14, 13, 12, 5, 4, 0, 65535)),
        sgx_type=random.choice((0, 1, 1, 1, 2)),
    )
    order.intel["platform"] = made
    return f"platform {components} {made.pce_svn}"


def _foreign_platform(kind: str, order: _Order, random: Random) -> str:
    change = random.choice(
        ({"fmspc": "00606a000000"}, {"fmspc": "20A06F000000"}, {"pceId": "0100"}, {"pceId": "0000 "}, {"fmspc": ""})
    )
    order.given["tcb_info"] = change
    return f"TCB info {change}"


def _body(kind: str, order: _Order, random: Random) -> str:
    sizes = _ENCLAVE_SIZES if kind == "sgx-3" else _TD_SIZES
    name = random.choice([*sizes])
    if name == "tee_tcb_svn":
        value = bytes((random.randrange(14), random.randrange(3), random.randrange(8))) + bytes(13)
    else:
        value = (1 << random.randrange(8 * sizes[name])).to_bytes(sizes[name], "little")
    order.quote.setdefault("fields", {})[name] = value
    return f"body {name} {value.hex()}"


def _quoting_enclave(kind: str, order: _Order, random: Random) -> str:
    name = random.choice([*_ENCLAVE_SIZES, "isv_svn", "isv_svn"])
    size = _ENCLAVE_SIZES[name]
    value = random.randrange(12) if name == "isv_svn" else 1 << random.randrange(8 * size)
    order.quote.setdefault("qe", {})[name] = value.to_bytes(size, "little")
    return f"QE {name} {value:x}"


def _document(kind: str, order: _Order, random: Random) -> str:
    name = random.choice(("tcb_info", "tcb_info", "qe_identity"))
    tee = "TDX" if kind.startswith("tdx") else "SGX"
    body = getattr(SoftwareIntel(vendor()), name)(tee)
    done, other = mutation(body, parts_of(body), [body], random)
    order.given[name] = json.dumps(other, separators=(",", ":"))
    return f"{name} {done}"


def _moment(kind: str, order: _Order, random: Random) -> str:
    part = random.choice([*IntelValidities.__dataclass_fields__, ""])
    order.at = random.choice(MOMENTS) if not part else random.choice((AT, *_WINDOW))
    if part:
        order.intel["validities"] = replace(IntelValidities(), **{part: _WINDOW})
    return f"{part or 'everything'} at {order.at}"


def _revoked(kind: str, order: _Order, random: Random) -> str:
    order.given["revoked"] = random.sample([*SERIALS], random.randint(1, 2))
    return f"revoked {order.given['revoked']}"


def _form(kind: str, order: _Order, random: Random) -> str:
    change: dict[str, Any] = random.choice(
        (
            {"key_type": 3}, {"tee_type": 0}, {"tee_type": 0x81}, {"vendor": bytes(16)}, {"certification_type": 1},
            {"outer_type": 5}, {"auth_data": b""}, {"auth_data": bytes(1000)}, {"version": 3}, {"version": 4},
            {"version": 5}, {"version": 6}, {"trailing": b"\0" * 8}, {"trailing": b"x"},
            {"flip": random.randrange(48)}, {"chain": b""}, {"chain": b"\0" * 100},
        )
    )  # fmt: skip
    order.quote.update(change)
    return f"quote {change}"


def _chain(kind: str, order: _Order, random: Random) -> str:
    intel = machine(kind).intel
    leaf, authority, root = intel.pck_chain()
    stranger = machine(kind, TestRoot(label="another")).intel
    chains = {
        "reversed": [root, authority, leaf], "without root": [leaf, authority], "leaf alone": [leaf],
        "root twice": [leaf, authority, root, root], "another root": [leaf, authority, stranger.root_certificate],
        "another leaf": [stranger.pck_certificate(), authority, root], "stranger": stranger.pck_chain(),
        "no leaf": [authority, authority, root], "signing certificate": [intel.tcb_certificate, root, root],
    }  # fmt: skip
    name = random.choice([*chains])
    order.quote["chain"] = chains[name]
    return f"chain {name}"


def _signers(kind: str, order: _Order, random: Random) -> str:
    intel = machine(kind).intel
    name = random.choice(("root signs", "pck signs", "authority signs", "root list by authority", "list by root"))
    if name == "root signs":
        order.given |= {"signer": intel.keys["root"], "signer_chain": [intel.root_certificate]}
    elif name == "pck signs":
        order.given |= {"signer": intel.keys["pck"], "signer_chain": intel.pck_chain()}
    elif name == "authority signs":
        chain = [intel.ca_certificate, intel.root_certificate]
        order.given |= {"signer": intel.keys[intel.ca], "signer_chain": chain}
    elif name == "root list by authority":
        order.given["root_ca_crl"] = intel.crl("root", intel.validities.root_crl, signer=intel.ca).hex()
    else:
        order.given["pck_crl"] = intel.crl(intel.ca, intel.validities.pck_crl, signer="root").hex()
    return name


Wrong = Callable[[str, _Order, Random], str]
WRONGS: Final[tuple[Wrong, ...]] = (
    _platform, _platform, _foreign_platform, _body, _body, _quoting_enclave, _quoting_enclave, _document, _document,
    _document, _moment, _revoked, _form, _chain, _signers,
)  # fmt: skip
