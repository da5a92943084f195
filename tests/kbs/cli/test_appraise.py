"""`kbs appraise`: real and synthetic evidence, exit codes, and what people and machines see."""

from __future__ import annotations

import base64
import json
import ssl
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jwcrypto import jwk, jws

from kbs.attestation.cases import DefaultPolicies, Judged, read_case, run_folder
from kbs.attestation.verifiers import snp
from kbs.cli.appraise import appraise_command
from kbs.clock import system_clock
from kbs.errors import PolicyBroken
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from kbs.tokens.keys import generate_token_key

Appraise = Callable[..., Result]

REPORT_DATA = b"challenge"
VALUES = {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}
REAL = [
    ("milan_v3", "2026-06-15T12:00:00Z"),
    ("e2e_genoa_v3", "2026-06-15T12:00:00Z"),
    ("turin_v5", "2026-07-15T12:00:00Z"),
]


@pytest.fixture
def appraise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Appraise:
    """Runs the command, with the entry points of pyproject.toml in place of an installed package."""
    groups = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "installed" / "kbs-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kbs\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    )
    monkeypatch.syspath_prepend(info.parent)

    def run(*arguments: Any) -> Result:
        result = CliRunner().invoke(appraise_command, [str(each) for each in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., tuple[Any, ...]]:
    def arguments(**members: Any) -> tuple[Any, ...]:
        path = tmp_path / "evidence.json"
        path.write_text(json.dumps({"svn": "1", "report_data": base64.b64encode(REPORT_DATA).decode(), **members}))
        return ("--tee", "sample", "--evidence", path, "--option", "enable_sample=true")

    return arguments


@pytest.fixture
def values(tmp_path: Path) -> tuple[Any, ...]:
    path = tmp_path / "values.json"
    path.write_text(json.dumps(VALUES))
    return ("--reference-values", path)


def _json(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.output)


def test_a_damaged_installation_says_nothing_of_the_evidence(
    sample: Callable[..., tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Shipped:
        raise PolicyBroken("a shipped policy is not what the manifest says")

    monkeypatch.setattr(Shipped, "load", staticmethod(broken))
    result = CliRunner().invoke(appraise_command, [str(each) for each in sample()])
    assert isinstance(result.exception, PolicyBroken)
    assert "refused" not in result.output


# --- real evidence under real roots -----------------------------------------------------------------------------------


def _evidence(vectors: Path, name: str) -> Any:
    return json.loads((vectors / "snp" / f"{name}.evidence.json").read_text())


@pytest.mark.parametrize(("name", "at"), REAL)
def test_real_evidence_is_authentic(appraise: Appraise, vectors: Path, name: str, at: str) -> None:
    path = vectors / "snp" / f"{name}.evidence.json"
    evidence = _evidence(vectors, name)
    bound = bytes(evidence["attestation_report"]["report_data"]).hex()
    arguments = ("--tee", "snp", "--evidence", path, "--at", at, "--json")
    (found,) = _json(appraise(*arguments, "--report-data", bound))["submods"].values()
    assert (found["binding"], found["revocation"]) == ("checked", "not_checked")
    assert found["claims"]["report_data"] == bound
    assert found["status"] != "affirming"
    unbound = _json(appraise(*arguments))
    assert unbound["submods"]["cpu0"]["binding"] == "not_checked"
    wrong = _json(appraise(*arguments, "--report-data", "ff" * 64), 1)
    assert (wrong["authentic"], wrong["class"], wrong["reason"]) == (False, "BindingMismatch", "binding_mismatch")


@pytest.mark.parametrize(("name", "at"), REAL)
@pytest.mark.parametrize("field", ["measurement", "report_data", "host_data", "report_id"])
def test_one_altered_byte_is_refused(
    appraise: Appraise, vectors: Path, tmp_path: Path, name: str, at: str, field: str
) -> None:
    evidence = _evidence(vectors, name)
    evidence["attestation_report"][field][-1] ^= 1
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(evidence))
    found = _json(appraise("--tee", "snp", "--evidence", path, "--at", at, "--json"), 1)
    assert found["class"] == "SignatureInvalid"


def test_the_claims_of_the_worked_example(appraise: Appraise, vectors: Path) -> None:
    wanted = json.loads((vectors / "as" / "appraisal.json").read_text())["snp_claims_from_fixture"]
    path = vectors / "snp" / "e2e_genoa_v3.evidence.json"
    found = _json(appraise("--tee", "snp", "--evidence", path, "--at", REAL[1][1], "--json"))
    document = found["ear"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert (document["report_data"], document["init_data"]) == (wanted["report_data"], wanted["init_data"])
    assert document["snp"].items() >= wanted["snp"].items()


@pytest.mark.parametrize(("name", "at"), [REAL[0], REAL[2]])
def test_a_raw_report_takes_its_certificate_from_a_folder(
    appraise: Appraise, vectors: Path, tmp_path: Path, name: str, at: str
) -> None:
    raw = (vectors / "snp" / f"{name}.report.bin").read_bytes()
    der = (vectors / "snp" / f"{name}.vcek.der").read_bytes()
    folder = tmp_path / "collateral"
    folder.mkdir()
    arguments = ("--tee", "snp", "--evidence", vectors / "snp" / f"{name}.report.bin", "--at", at, "--json")
    assert _json(appraise(*arguments, "--endorsements", folder), 1)["class"] == "EndorsementMissing"
    assert _json(appraise(*arguments), 1)["class"] == "EndorsementMissing"
    (folder / "chip.VCEK.der").write_bytes(der)
    by_folder = _json(appraise(*arguments, "--endorsements", folder))
    (folder / "chip.VCEK.der").unlink()
    (folder / "vcek.pem").write_text(ssl.DER_cert_to_PEM_cert(der))
    by_pem = _json(appraise(*arguments, "--endorsements", folder))
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"vcek": base64.b64encode(der).decode()}))
    by_file = _json(appraise(*arguments, "--endorsements", given))
    assert by_folder["submods"] == by_pem["submods"] == by_file["submods"]
    altered = tmp_path / "altered.bin"
    for position in (0, 0x90, len(raw) // 2, 0x2A0):
        altered.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        result = appraise("--tee", "snp", "--evidence", altered, "--at", at, "--endorsements", folder)
        assert result.exit_code == 1, position
    altered.write_bytes(raw[:-1])
    assert appraise("--tee", "snp", "--evidence", altered, "--at", at, "--endorsements", folder).exit_code == 1


def test_outside_its_validity_a_certificate_is_refused(appraise: Appraise, vectors: Path) -> None:
    path = vectors / "snp" / "milan_v3.evidence.json"
    found = _json(appraise("--tee", "snp", "--evidence", path, "--at", "2034-01-01T00:00:00Z", "--json"), 1)
    assert found["class"] == "EndorsementExpired"


# --- sample evidence --------------------------------------------------------------------------------------------------


def test_affirming(appraise: Appraise, sample: Any, values: Any) -> None:
    found = _json(appraise(*sample(), *values, "--report-data", REPORT_DATA.hex(), "--json"))
    cpu0 = found["submods"]["cpu0"]
    assert (cpu0["status"], cpu0["binding"], cpu0["findings"]) == ("affirming", "checked", [])
    assert found["ear"]["submods"]["cpu0"]["ear.status"] == "affirming"
    assert "token" not in found


def test_without_report_data_nothing_affirms(appraise: Appraise, sample: Any, values: Any) -> None:
    found = _json(appraise(*sample(), *values, "--json"))
    assert found["authentic"]
    assert found["submods"]["cpu0"]["binding"] == "not_checked"
    assert found["submods"]["cpu0"]["status"] != "affirming"
    assert found["ear"]["submods"]["cpu0"]["ear.status"] != "affirming"
    assert "binding: not_checked" in appraise(*sample(), *values).output


def test_what_did_not_match_is_told(appraise: Appraise, sample: Any, values: Any) -> None:
    arguments = (*sample(debug=True, svn="9"), *values, "--report-data", REPORT_DATA.hex())
    found = _json(appraise(*arguments, "--json"))
    unmet = {each["claim"]: each for each in found["submods"]["cpu0"]["findings"] if not each["ok"]}
    assert set(unmet) == {"sample.debug", "sample.svn"}
    assert (unmet["sample.svn"]["seen"], unmet["sample.svn"]["expected"]) == ("9", ["1"])
    result = appraise(*arguments)
    assert result.exit_code == 0
    for word in ("sample.svn", "sample.debug", "what did not match", "contraindicated", "EAR, unsigned"):
        assert word in result.output


def test_init_data_digest(appraise: Appraise, sample: Any) -> None:
    found = _json(appraise(*sample(), "--init-data", "00ff", "--json"))
    document = found["ear"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert (document["init_data"], document["init_data_claims"]) == ("AP8=", None)


def test_times(appraise: Appraise, sample: Any) -> None:
    found = _json(appraise(*sample(), "--at", "2026-06-15T14:00:00+02:00", "--json"))
    assert (found["ear"]["iat"], found["ear"]["nbf"], found["ear"]["exp"]) == (1781524800, 1781524800, 1781525100)
    assert _json(appraise(*sample(), "--json"))["ear"]["iat"] > 1_700_000_000


def test_refusals_name_class_and_reason(appraise: Appraise, sample: Any) -> None:
    found = appraise(*sample(), "--report-data", "01")
    assert found.exit_code == 1
    assert "BindingMismatch (binding_mismatch)" in found.output
    off = _json(appraise(*sample()[:4], "--json"), 1)
    assert (off["class"], off["reason"]) == ("TeeDisabled", "tee_disabled")


@pytest.mark.parametrize("raw", [b"", b"{", b'{"svn": "1", "svn": "2"}', b"\xff\x00", b'{"svn": NaN}', b"{" * 100_000])
def test_broken_evidence_is_refused(appraise: Appraise, tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "evidence"
    path.write_bytes(raw)
    for tee, more in (("sample", ("--option", "enable_sample=true")), ("snp", ())):
        assert _json(appraise("--tee", tee, "--evidence", path, *more, "--json"), 1)["reason"] == "evidence_malformed"


def test_nothing_from_evidence_steers_a_terminal(appraise: Appraise, sample: Any) -> None:
    result = appraise(*sample(svn="\x1b[31mred [bold]x\u202e", launch_digest="[link=http://x]y"))
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert "[bold]" in result.output
    assert "[link=http://x]y" in result.output


# --- signing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "keys").mkdir(parents=True)
    (folder / "kbs.toml").write_text('[server]\npublic_url = "https://kbs.example"\n[token]\ndeveloper = "example"\n')
    generate_token_key(folder / "keys" / "token.pem")
    return folder


def test_a_data_directory_signs(appraise: Appraise, sample: Any, data: Path) -> None:
    found = _json(appraise(*sample(), "--data", data, "--at", "2026-06-15T12:00:00Z", "--json"))
    token = jws.JWS()
    token.deserialize(found["token"], jwk.JWK.from_pem((data / "keys" / "token.pem").read_bytes()))
    assert json.loads(token.payload) == found["ear"]
    assert found["ear"]["iss"] == "https://kbs.example"
    assert found["ear"]["ear.verifier-id"]["developer"] == "example"
    assert "EAR, signed" in appraise(*sample(), "--data", data).output


def test_a_signed_result_without_a_challenge_opens_nothing(appraise: Appraise, sample: Any, data: Path) -> None:
    """There is no TEE key in it, so no resource can be sealed to anybody."""
    found = _json(appraise(*sample(), "--report-data", REPORT_DATA.hex(), "--data", data, "--json"))
    document = found["ear"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert document["runtime_data_claims"] is None


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tee", "sev"),
        ("--tee", "tdx-unknown"),
        ("--at", "yesterday"),
        ("--at", "2026-06-15T12:00:00"),
        ("--report-data", "xyz"),
        ("--report-data", ""),
        ("--init-data", "0"),
        ("--option", "enable_sample"),
        ("--option", "=true"),
        ("--option", "enable_sample=yes"),
        ("--option", "enable_sample=true"),
        ("--option", "unknown=true"),
        ("--evidence", "/nonexistent"),
        ("--reference-values", "/nonexistent"),
        ("--endorsements", "/nonexistent"),
        ("--data", "/nonexistent"),
        ("--nonsense",),
    ],
)
def test_wrong_use(appraise: Appraise, sample: Any, arguments: tuple[str, ...]) -> None:
    assert appraise(*sample(), *arguments).exit_code == 2


def test_a_tee_nobody_provides_is_wrong_use(appraise: Appraise, tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    path.write_bytes(b"x")
    result = appraise("--tee", "nvidia-dpu", "--evidence", path)
    assert (result.exit_code, "0 providers" in result.output) == (2, True)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}'])
def test_files_beside_the_evidence_are_json_objects(appraise: Appraise, sample: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "beside.json"
    path.write_text(text)
    assert appraise(*sample(), "--reference-values", path).exit_code == 2
    assert appraise(*sample(), "--endorsements", path).exit_code == 2


def test_two_files_of_one_name_are_wrong_use(appraise: Appraise, sample: Any, tmp_path: Path) -> None:
    folder = tmp_path / "collateral"
    folder.mkdir()
    (folder / "vcek.der").write_bytes(b"1")
    (folder / "a.vcek.pem").write_bytes(b"2")
    assert appraise(*sample(), "--endorsements", folder).exit_code == 2


def test_a_data_directory_without_key_is_wrong_use(appraise: Appraise, sample: Any, data: Path) -> None:
    (data / "keys" / "token.pem").unlink()
    assert appraise(*sample(), "--data", data).exit_code == 2
    (data / "kbs.toml").unlink()
    assert appraise(*sample(), "--data", data).exit_code == 2


# --- collateral that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"vcek": "*"}, {"vcek": 5}, {"crl": "é"}, {"items": {"amd/crl/Milan": "*"}}])
def test_collateral_that_is_not_base64_is_wrong_use(
    appraise: Appraise, vectors: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given))
    result = appraise("--tee", "snp", "--evidence", vectors / "snp" / "milan_v3.report.bin", "--endorsements", path)
    assert (result.exit_code, "base64" in result.output) == (2, True)


def test_evidence_at_fault_stays_the_evidences_fault(appraise: Appraise, tmp_path: Path) -> None:
    path, given = tmp_path / "report.bin", tmp_path / "given.json"
    path.write_bytes(b"short")
    given.write_text(json.dumps({"vcek": "*"}))
    assert appraise("--tee", "snp", "--evidence", path, "--endorsements", given).exit_code == 1


def test_intels_bundle_with_and_without_its_outer_member(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    arguments = (
        *("--tee", "tdx", "--evidence", vectors / "tdx" / "phala_tdx_quote.dat", "--at", "2025-07-04T12:00:00Z"),
        *("--option", "allow_trailing_bytes=true", "--json"),
    )
    bare = vectors / "tdx" / "phala_tdx_quote.collateral.json"
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"collateral": json.loads(bare.read_text())}))
    one, other = (_json(appraise(*arguments, "--endorsements", path)) for path in (bare, wrapped))
    assert one["submods"] == other["submods"]
    assert one["submods"]["cpu0"]["revocation"] == "checked"


# --- decisions on record ----------------------------------------------------------------------------------------------


_saved: list[bytes] = []


def _record(appraise: Appraise, vectors: Path, record: Path) -> Path:
    """A decision on record, made once for all tests."""
    if not _saved:
        assert _save(appraise, vectors, record).exit_code == 0
        _saved.append(record.read_bytes())
    record.write_bytes(_saved[0])
    return record


def _save(appraise: Appraise, vectors: Path, record: Path, *more: Any) -> Result:
    folder = vectors / "snp"
    given = record.with_suffix(".given")
    given.write_text(json.dumps({"vcek": base64.b64encode((folder / "milan_v3.vcek.der").read_bytes()).decode()}))
    arguments = ("--tee", "snp", "--evidence", folder / "milan_v3.report.bin", "--at", REAL[0][1])
    return appraise(*arguments, "--endorsements", given, "--save", record, *more)


def test_a_decision_is_replayed_from_its_file_alone(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    record = _record(appraise, vectors, tmp_path / "record.json")
    found = _json(appraise("--replay", record, "--json"))
    assert found["replay"] == {"same": True, "differences": []}
    assert found["at"] == "2026-06-15T12:00:00+00:00"
    shown = appraise("--replay", record)
    assert (shown.exit_code, "replayed: the decision on record" in shown.output) == (0, True)
    case = read_case(record.read_bytes())
    assert isinstance(case.evidence, bytes)
    assert case.anchors is None


def test_a_refusal_is_replayed_too(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert _save(appraise, vectors, record, "--report-data", "01").exit_code == 1
    found = _json(appraise("--replay", record, "--json"))
    assert (found["authentic"], found["replay"]["same"]) == (False, True)


@pytest.mark.parametrize(
    ("member", "value", "text"),
    [
        ("now", "2066-06-15T12:00:00Z", "refused"),
        ("report_data", "01", "refused"),
        ("reference_values", {"snp_bootloader": 4}, "decision.references"),
        ("options", {"allow_unchecked_revocation": ["snp"]}, "now"),
    ],
)
def test_another_decision_is_told(
    appraise: Appraise, vectors: Path, tmp_path: Path, member: str, value: Any, text: str
) -> None:
    record = _record(appraise, vectors, tmp_path / "record.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {member: value}))
    found = _json(appraise("--replay", record, "--json"), 1)
    assert found["replay"]["same"] is False
    assert any(text in each for each in found["replay"]["differences"])


def test_another_decision_is_told_to_people(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    record = _record(appraise, vectors, tmp_path / "record.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"report_data": "01"}))
    shown = appraise("--replay", record)
    assert (shown.exit_code, "ANOTHER decision" in shown.output) == (1, True)


def test_a_record_is_a_case_file(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    assert _save(appraise, vectors, folder / "good.json").exit_code == 0
    assert _save(appraise, vectors, folder / "bad.json", "--report-data", "01").exit_code == 1
    engine = WasmEngine(system_clock)
    judged: list[Judged] = []
    factories = {Tee.SNP: snp.build}
    counts = run_folder(folder, lambda tee: factories[tee], engine, DefaultPolicies(Shipped.load()), judged.append)
    assert (counts, [each.wrong for each in judged]) == ((2, 0), [(), ()])


def test_a_record_of_json_evidence(appraise: Appraise, sample: Any, values: Any, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert appraise(*sample(), *values, "--report-data", REPORT_DATA.hex(), "--save", record).exit_code == 0
    document = json.loads(record.read_text())
    assert document["evidence"]["svn"] == "1"
    assert document["reference_values"] == VALUES
    assert document["expect"]["decision"]["submods"]["cpu0"]["status"] == "affirming"
    assert _json(appraise("--replay", record, "--json"))["replay"]["same"]


@pytest.mark.parametrize("more", [("--tee", "snp"), ("--at", "2026-06-15T12:00:00Z"), ("--option", "a=1")])
def test_a_replay_takes_nothing_beside_its_file(
    appraise: Appraise, vectors: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    record = _record(appraise, vectors, tmp_path / "record.json")
    assert appraise("--replay", record, *more).exit_code == 2


def test_what_is_no_record_is_wrong_use(appraise: Appraise, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("{}")
    assert appraise("--replay", path).exit_code == 2
    assert appraise("--tee", "snp").exit_code == 2


def test_anchors_instead_of_the_built_in_ones(appraise: Appraise, vectors: Path, tmp_path: Path) -> None:
    """A TEE without built-in ones says what is missing; a file of them is read strictly."""
    evidence = vectors / "tpm/tpm_evidence.json"
    arguments = ("--tee", "tpm", "--evidence", evidence, "--at", "2026-06-15T12:00:00Z")
    nobody = appraise(*arguments)
    assert nobody.exit_code == 2
    assert "no attestation key is enrolled" in nobody.output
    anchors = tmp_path / "aks.json"
    anchors.write_text(json.dumps({"trusted_aks": [json.loads(evidence.read_text())["ak_public"]]}))
    accepted = appraise(*arguments, "--anchors", anchors, "--json")
    assert accepted.exit_code == 0, accepted.output
    strange = appraise(*arguments, "--anchors", anchors, "--report-data", "00" * 48)
    assert strange.exit_code == 1
    assert "binding_mismatch" in strange.output
    anchors.write_text("[]")
    assert appraise(*arguments, "--anchors", anchors).exit_code == 2
