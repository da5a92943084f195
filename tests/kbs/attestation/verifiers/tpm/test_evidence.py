"""The JSON form: exact types, sizes and encodings."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kbs.attestation.verifiers.tpm.evidence import read
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import EvidenceMalformed

TPM = SoftwareTpm(scheme="ecdsa", certified=True)
GOOD = TPM.evidence(bytes(48), log=TPM.event_log())


def with_member(path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inner = body
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return body


def test_good_evidence_is_read() -> None:
    presented = read(GOOD)
    assert presented.values == tuple(TPM.bank.values)
    assert presented.event_log == TPM.event_log()
    assert len(presented.chain) == 2


def test_members_of_newer_guests_are_not_looked_at() -> None:
    assert read({**GOOD, "new": {"deep": [1]}, "tpm_quote": {**GOOD["tpm_quote"], "new": 1}}) == read(GOOD)


@pytest.mark.parametrize(
    "name", ["ak_public", "tpm_quote", "tpm_quote.signature", "tpm_quote.message", "tpm_quote.pcrs"]
)
@pytest.mark.parametrize("value", [None, 1, [], "", "!", "AAA", "AAAA\n", {}, "A" * 8192, True])
def test_members_that_must_be_there(name: str, value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read(with_member(name, value))


@pytest.mark.parametrize("name", ["ak_certificate", "ak_certificate_chain", "event_log"])
@pytest.mark.parametrize("value", [1, [1], "!", {}, True, ["!"], [""], ["AAAA"] * 5])
def test_members_that_may_be_there(name: str, value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read(with_member(name, value))


def test_a_chain_without_the_keys_own_certificate_is_refused() -> None:
    with pytest.raises(EvidenceMalformed):
        read(with_member("ak_certificate", None))
    assert len(read(with_member("ak_certificate_chain", None)).chain) == 1


VALUE = "ab" * 32


@pytest.mark.parametrize(
    "value",
    [VALUE[:-1], VALUE[:-2], f"{VALUE}00", f" {VALUE[:-1]}", f"{VALUE[:30]}  {VALUE[32:]}", f"{VALUE[:-2]}xy", "", 7,
     f"0x{VALUE[2:]}", VALUE.encode(), f"{VALUE[:-2]}\u0661\u0662", None],
)  # fmt: skip
def test_pcr_values_are_64_hex_digits(value: Any) -> None:
    pcrs = [*GOOD["tpm_quote"]["pcrs"]]
    pcrs[5] = value
    with pytest.raises(EvidenceMalformed):
        read(with_member("tpm_quote.pcrs", pcrs))


@pytest.mark.parametrize("count", [0, 1, 8, 23, 25, 48])
def test_there_are_24_pcr_values(count: int) -> None:
    with pytest.raises(EvidenceMalformed):
        read(with_member("tpm_quote.pcrs", [VALUE] * count))
