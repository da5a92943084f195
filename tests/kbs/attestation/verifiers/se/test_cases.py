"""Case files, with the policy, as `kbs vectors` runs them; and by the class of each refusal."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.errors import BindingMismatch, EvidenceMalformed, EvidenceRejected, SignatureInvalid
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.fakes.case_files import FACTORIES, load

FOLDER = Path(__file__).parents[4] / "vectors" / "se" / "synthetic"
CASES = sorted(FOLDER.glob("*.json"))
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "bad_padding": SignatureInvalid,
    "forged_by_anyone": SignatureInvalid,
    "measurement_flip": SignatureInvalid,
    "ok_default": SignatureInvalid,
    "phkh_short": EvidenceMalformed,
    "tags_changed": SignatureInvalid,
    "user_data": BindingMismatch,
    "user_data_longer": BindingMismatch,
}


def test_every_case_comes_out_as_it_says() -> None:
    moment = datetime.fromisoformat("2026-06-15T12:00:00Z")
    judged: list[Judged] = []
    policies = DefaultPolicies(Shipped.load())
    cases, wrong = run_folder(FOLDER, lambda tee: FACTORIES[tee], WasmEngine(lambda: moment), policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert (cases, wrong) == (9, 0)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_causes(path: Path) -> None:
    case = load(path)
    if case.name not in REFUSALS:
        assert case.expect["authentic"]
        assert case.verify()
        return
    with pytest.raises(REFUSALS[case.name]) as caught:
        case.verify()
    assert type(caught.value) is REFUSALS[case.name]


def test_no_padding_oracle() -> None:
    """Ciphertext that cannot be opened, a key nobody issued and a wrong measurement look exactly alike."""
    texts = set()
    for name in ("bad_padding", "forged_by_anyone", "measurement_flip", "ok_default", "tags_changed"):
        with pytest.raises(SignatureInvalid) as caught:
            load(FOLDER / f"{name}.json").verify()
        texts.add((str(caught.value), caught.value.reason))
    assert len(texts) == 1
