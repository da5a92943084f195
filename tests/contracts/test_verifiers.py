"""What every verifier must do, run over every attester that can be made in software.

A new TEE joins by one line in `ATTESTERS`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, VerifiedClaims, VerifierOptions
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx
from kbs.client.attesters.cca import SoftwareCca
from kbs.client.attesters.csv import SoftwareCsv
from kbs.client.attesters.hygondcu import SoftwareHygonDcu
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.client.attesters.se import SoftwareSe
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.snp import SoftwareSnp, Validities
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import BindingMismatch, EndorsementExpired, EvidenceRejected, InitDataMismatch
from kbs.protocol.tee import Tee
from tests.fakes.case_files import FACTORIES
from tests.fakes.sample import SoftwareSample

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce and key").digest()
INIT_DATA = hashlib.sha256(b"init data").digest()


class Attester(Protocol):
    """What the suite needs of a software attester."""

    tee: Tee

    @property
    def anchors(self) -> dict[str, Any] | None: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def endorsements(self) -> dict[str, str]: ...
    def evidence(self, report_data: bytes, init_data: bytes | None = None) -> dict[str, Any]: ...


ATTESTERS: dict[str, Callable[[], Attester]] = {
    "az-snp": SoftwareAzSnp,
    "az-snp-v0": lambda: SoftwareAzSnp(version=0),
    "az-tdx": SoftwareAzTdx,
    "az-tdx-v0": lambda: SoftwareAzTdx(version=0),
    "cca": SoftwareCca,
    "cca-cose-key": lambda: SoftwareCca(generation="2023"),
    "csv-v1": lambda: SoftwareCsv(version=1),
    "csv-v2": lambda: SoftwareCsv(version=2),
    "csv-v3": lambda: SoftwareCsv(version=3),
    "hygondcu": SoftwareHygonDcu,
    "nitro": lambda: SoftwareNitro(clock=lambda: AT),
    "nitro-tpm": lambda: SoftwareNitro(kind="nitrotpm", clock=lambda: AT),
    "sample": SoftwareSample,
    "sampledevice": lambda: SoftwareSample(is_device=True),
    "se": SoftwareSe,
    "sgx": SoftwareSgx,
    "snp-milan": SoftwareSnp,
    "snp-genoa": lambda: SoftwareSnp(product="Genoa"),
    "snp-turin": lambda: SoftwareSnp(product="Turin"),
    "snp-vlek": lambda: SoftwareSnp(kind="vlek"),
    "tdx": SoftwareTdx,
    "tdx-15": lambda: SoftwareTdx(version=5),
    "tpm": SoftwareTpm,
    "tpm-certified": lambda: SoftwareTpm(scheme="ecdsa", certified=True),
}
SIGNED = [name for name in ATTESTERS if name.startswith("snp")] + [
    "az-snp-v0",
    "az-tdx-v0",
    "cca",
    "cca-cose-key",
]  # in numbers
BINDS_INIT_DATA = [*SIGNED, "nitro", "nitro-tpm", "az-snp", "az-tdx", "sgx", "tdx", "tdx-15", "tpm", "tpm-certified"]
CLASSES = {
    Tee.AZ_SNP_VTPM: "cpu",
    Tee.AZ_TDX_VTPM: "cpu",
    Tee.CCA: "cpu",
    Tee.CSV: "cpu",
    Tee.HYGON_DCU: "dcu",
    Tee.NITRO: "cpu",
    Tee.SAMPLE: "cpu",
    Tee.SAMPLE_DEVICE: "gpu",
    Tee.SE: "cpu",
    Tee.SGX: "cpu",
    Tee.SNP: "cpu",
    Tee.TDX: "cpu",
    Tee.TPM: "cpu",
}


class Bench:
    """An attester, its verifier, and one good piece of evidence."""

    def __init__(self, attester: Attester) -> None:
        self.attester = attester
        self.verifier = FACTORIES[attester.tee](VerifierOptions(attester.options, attester.anchors))
        self.body = attester.evidence(NONCE, INIT_DATA)
        self.good = Evidence(attester.tee, self.body)
        self.endorsements = self.verifier.endorsements_from(self.good, attester.endorsements)

    def verify(self, body: Any = None, binding: Binding | None = None, at: datetime = AT) -> Sequence[VerifiedClaims]:
        evidence = self.good if body is None else Evidence(self.attester.tee, body)
        return self.verifier.verify(evidence, self.endorsements, binding or Binding(NONCE, INIT_DATA), at)


@cache
def bench(name: str) -> Bench:
    return Bench(ATTESTERS[name]())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON value that is neither object nor list."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, member in members:
        found = True
        yield from leaves(member, (*path, key))
    if not found:
        yield path


def changed(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a JSON value with another value at a path."""
    if not path:
        return value
    result = copy.copy(body)
    result[path[0]] = changed(body[path[0]], path[1:], value)
    return result


def at_path(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


@pytest.mark.parametrize("name", ATTESTERS)
def test_good_evidence_is_accepted(name: str) -> None:
    (found,) = bench(name).verify()
    tee = bench(name).attester.tee
    assert (found.tee, found.device_class) == (tee, CLASSES[tee])
    assert found.claims["binding"] == "checked"
    assert found.claims["revocation"] in ("checked", "not_applicable")
    assert isinstance(found.claims["report_data"], str)


@pytest.mark.parametrize("name", ATTESTERS)
def test_needs_are_named_and_answered_by_what_is_given(name: str) -> None:
    needs = bench(name).verifier.needs(bench(name).good)
    assert all(isinstance(need, EndorsementNeed) for need in needs)
    assert set(bench(name).endorsements.items) <= {need.name for need in needs}


@pytest.mark.parametrize("name", ATTESTERS)
def test_without_a_challenge_the_claims_say_so(name: str) -> None:
    (found,) = bench(name).verify(binding=Binding(None))
    assert found.claims["binding"] == "not_checked"


@pytest.mark.parametrize("name", ATTESTERS)
@pytest.mark.parametrize(
    "other",
    [hashlib.sha384(b"other").digest(), NONCE[:-1], NONCE + b"\1", NONCE[:32], b"", NONCE + bytes(40), b"\0" * 48],
    ids=["other", "short", "long", "cut", "empty", "beyond the field", "zero"],
)
def test_another_nonce_or_key_is_refused(name: str, other: bytes) -> None:
    with pytest.raises(BindingMismatch):
        bench(name).verify(binding=Binding(other, INIT_DATA))


@pytest.mark.parametrize("name", BINDS_INIT_DATA)
@pytest.mark.parametrize("other", [hashlib.sha256(b"other").digest(), INIT_DATA[:-1], INIT_DATA[:1], b"", bytes(32)])
def test_other_init_data_is_refused(name: str, other: bytes) -> None:
    with pytest.raises(InitDataMismatch):
        bench(name).verify(binding=Binding(NONCE, other))


@pytest.mark.parametrize("name", SIGNED)
def test_any_change_to_signed_evidence_is_refused_or_does_not_enter_the_claims(name: str) -> None:
    """Every seventh number of the evidence, one more or one less: no other exception, no other claims."""
    subject = bench(name)
    (good,) = subject.verify()
    refused = 0
    for path in list(leaves(subject.body))[::7]:
        value = at_path(subject.body, path)
        if not isinstance(value, int):
            continue
        try:
            (found,) = subject.verify(changed(subject.body, path, value ^ 1))
        except EvidenceRejected:
            refused += 1
        else:
            assert found.claims == good.claims, path
    assert refused > 200


@pytest.mark.parametrize("name", ATTESTERS)
@pytest.mark.parametrize(
    "body", [{}, [], "", b"", 0, None, True, b"\0" * 1183, b"\0" * 1184, b"\xff" * 5000, [[]], {"": 1}]
)
def test_what_is_no_evidence_is_refused(name: str, body: Any) -> None:
    subject = bench(name)
    evidence = Evidence(subject.attester.tee, body)
    with pytest.raises(EvidenceRejected):
        subject.verifier.verify(evidence, subject.endorsements, Binding(NONCE, INIT_DATA), AT)
    with pytest.raises(EvidenceRejected):
        subject.verifier.verify(evidence, Endorsements(), Binding(None), AT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ATTESTERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_anywhere_raises_nothing_else(name: str, data: st.DataObject) -> None:
    subject = bench(name)
    path = data.draw(st.sampled_from(list(leaves(subject.body))))
    path = path[: data.draw(st.integers(0, len(path)))]
    body = changed(subject.body, path, data.draw(JSON))
    refusals: list[type[Exception]] = []
    for step in (
        lambda: subject.verifier.needs(Evidence(subject.attester.tee, body)),
        lambda: subject.verify(body),
    ):
        try:
            step()
        except EvidenceRejected as refused:
            refusals.append(type(refused))
    assert EvidenceRejected not in refusals, "every cause has a class of its own"


@pytest.mark.parametrize("missing", ["attestation_report", "cert_chain"])
def test_absent_members_are_not_consent(missing: str) -> None:
    subject = bench("snp-milan")
    body = {name: value for name, value in subject.body.items() if name != missing}
    with pytest.raises(EvidenceRejected):
        subject.verify(body)


SECOND = timedelta(seconds=1)
WINDOW = (AT - timedelta(days=1), AT + timedelta(days=1))
NARROW = [replace(Validities(), **{part: WINDOW}) for part in ("ark", "intermediate", "vek", "crl")]


@pytest.mark.parametrize("product_and_kind", [("Milan", "vcek"), ("Turin", "vlek")])
@pytest.mark.parametrize("validities", NARROW, ids=["root", "intermediate", "key", "list"])
def test_one_second_past_each_validity_is_refused(validities: Validities, product_and_kind: tuple[str, str]) -> None:
    subject = Bench(SoftwareSnp(product=product_and_kind[0], kind=product_and_kind[1], validities=validities))
    for moment in WINDOW:
        assert subject.verify(at=moment)
    for moment in (WINDOW[0] - SECOND, WINDOW[1] + SECOND):
        with pytest.raises(EndorsementExpired):
            subject.verify(at=moment)
