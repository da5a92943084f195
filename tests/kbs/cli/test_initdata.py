"""`kbs initdata`: on files, and against a broker in this process; the document about it runs as it stands."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from kbs.errors import StorageUnavailable
from kbs.initdata import annotation
from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import Run, bad_json, good_json, invoke

VECTORS: Any = json.loads((ROOT / "tests/vectors/initdata/initdata-vectors.json").read_text())
FIRST = VECTORS["documents"][0]
RAW = FIRST["toml"].encode()
OTHER = RAW.replace(b"payments-frontend", b"payments-backend")
ON_FILES = ("render", "check", "digest", "diff")
DIGESTS = "init_data_digests"


def local(*arguments: Any, stdin: bytes | None = None) -> Result:
    return invoke(None, "initdata", *arguments, stdin=stdin)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes, str], Path]:
    def write(raw: bytes, name: str = "initdata.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write


# --- on files ---------------------------------------------------------------------------------------------------------


def test_digest_prints_hex_and_nothing_else(file: Any) -> None:
    for raw in (RAW, FIRST["annotation_value"].encode() + b"\n", annotation.compress(RAW)):
        assert local("digest", file(raw)).stdout == FIRST["digest_hex"] + "\n"
    assert local("digest", "-", stdin=RAW).stdout == FIRST["digest_hex"] + "\n"
    assert local("digest", file(RAW), "--tee", "tpm").stdout == FIRST["expected_fields"]["pcr8_sha256_hex"] + "\n"
    found = good_json(local("digest", file(RAW), "--json"))
    assert found["fields"]["tdx"] == FIRST["expected_fields"]["tdx_mrconfigid_48_hex"]
    assert "MRCONFIGID" in local("digest", file(RAW), "--all").stdout


def test_a_digest_that_the_tee_cannot_take(file: Any) -> None:
    path = file(VECTORS["documents"][1]["toml"].encode())
    result = local("digest", path, "--tee", "az-snp-vtpm")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "use algorithm sha256" in result.stderr
    assert "takes sha256 only" in local("digest", path, "--all").stdout
    assert local("digest", path, "--tee", "toaster").exit_code == 2


def test_check_exits_by_what_it_finds(file: Any) -> None:
    assert local("check", file(RAW)).exit_code == 0
    warned = file(VECTORS["documents"][1]["toml"].encode())
    assert local("check", warned).exit_code == 0
    strict = local("check", warned, "--strict", "--json")
    assert strict.exit_code == 1
    found = json.loads(strict.stdout)
    assert found["ok"] is False
    assert {each["name"] for each in found["findings"] if each["severity"] == "warning"} == {
        "algorithm-cut",
        "algorithm-refused",
    }
    bad = local("check", file(RAW.replace(b'"0.1.0"', b'"0.1.1"')))
    assert bad.exit_code == 1
    assert "[version-not-started]" in bad.stdout


def test_diff(file: Any) -> None:
    one = file(RAW, "one")
    same = local("diff", one, file(FIRST["annotation_value"].encode(), "two"))
    assert same.exit_code == 0
    assert FIRST["digest_hex"] in same.stdout
    changed = RAW.replace(b"kbs.example:8080", b"kbs.other", 1).replace(b"65535", b"0").replace(b"frontend", b"backend")
    result = local("diff", one, file(changed + b'"more" = "x"\n', "three"))
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    for line in (
        "aa.toml: token_configs.kbs.url",
        "- https://kbs.example:8080",
        "+ https://kbs.other",
        "- payments-frontend",
        "+ payments-backend",
        "+ x",
    ):
        assert line in lines
    assert any(line.startswith("+policy_data") and '"UID": 0' in line for line in lines)
    assert "cdh.toml" not in result.stdout
    layout = json.loads(local("diff", one, file(RAW + b"\n", "four"), "--json").stdout)
    assert layout["differences"][0]["path"] == "layout"
    assert not layout["same"]


def test_render_writes_whole_files_or_none(file: Any, tmp_path: Path) -> None:
    yaml = file(b"kbs: {url: 'https://kbs:1'}\nagent_policy: none.rego\n", "web.yaml")
    out = tmp_path / "out.toml"
    out.write_bytes(b"before")
    result = local("render", yaml, "--output", out)
    assert result.exit_code == 1
    assert "none.rego" in result.stderr
    assert out.read_bytes() == b"before"
    file(b"package agent_policy\n", "none.rego")
    assert local("render", yaml, "--output", out).exit_code == 0
    assert local("render", yaml).stdout.encode() == out.read_bytes()
    value = local("render", yaml, "--annotation").stdout.strip()
    assert annotation.decode(value) == out.read_bytes()
    assert good_json(local("render", yaml, "--json"))["annotation"] == value
    assert local("render", yaml, "--output", tmp_path / "no/where").exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.rego", "out.toml", "web.yaml"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"\xff\xfe", b"hello", RAW + b"[data]\n", b"H4sI\n", b"kind: Pod\n", b"&a [*a]", bytes(5 << 20)],
    ids=["empty", "nul", "not UTF-8", "text", "twice", "base64", "pod", "aliases", "large"],
)  # fmt: skip
@pytest.mark.parametrize("command", ON_FILES)
def test_wrong_files(file: Any, raw: bytes, command: str) -> None:
    path = file(raw)
    result = local(command, path, path) if command == "diff" else local(command, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert len(result.stderr) < 500


# --- the register -----------------------------------------------------------------------------------------------------


def values(run: Run) -> Any:
    result = run("reference", "show", DIGESTS, "--json")
    return good_json(result)[0]["value"] if result.exit_code == 0 else None


def test_the_register_keeps_texts_and_approves_digests(run: Run, file: Any) -> None:
    run("reference", "set", DIGESTS, '["ab12"]')
    path = file(annotation.encode(RAW).encode())
    assert run("initdata", "register", path, "--name", "web", "--owner", "a team").exit_code == 0
    held = values(run)
    assert held[0] == "ab12"
    for name in ("tdx_mrconfigid_48_hex", "snp_hostdata_32_hex", "cca_personalization_64_hex", "pcr8_sha256_hex"):
        assert FIRST["expected_fields"][name] in held
    found = good_json(run("initdata", "show", "web", "--json"))
    assert (found["text"], found["owner"], found["version"]) == (FIRST["toml"], "a team", 1)
    assert run("initdata", "show", "web", "--text").stdout == FIRST["toml"]
    assert "HOST" not in run("initdata", "show", "web").stderr
    (listed,) = good_json(run("initdata", "list", "--json"))
    assert (listed["digest"], "text" in listed) == (FIRST["digest_hex"], False)
    assert FIRST["digest_hex"] in run("initdata", "list").stdout

    assert run("initdata", "register", file(OTHER), "--name", "web", "--owner", "b").exit_code == 0
    assert FIRST["digest_hex"] not in values(run), "what was replaced is approved no longer"
    assert run("initdata", "register", file(RAW), "--name", "second", "--owner", "b").exit_code == 0
    assert run("initdata", "register", file(RAW), "--name", "third", "--owner", "c").exit_code == 0
    assert run("initdata", "remove", "second").exit_code == 0
    assert FIRST["digest_hex"] in values(run), "another entry has the same document"
    assert run("initdata", "remove", "third").exit_code == 0
    assert run("initdata", "remove", "web").exit_code == 0
    assert values(run) == ["ab12"]
    assert good_json(run("initdata", "list", "--json")) == []


def test_lost_compare_and_set(run: Run, file: Any) -> None:
    path = file(RAW)
    assert run("initdata", "register", path, "--name", "web", "--owner", "a", "--expected", 0).exit_code == 0
    lost = bad_json(run("initdata", "register", path, "--name", "web", "--owner", "b", "--expected", 0, "--json"))
    assert lost["status"] == 412
    assert bad_json(run("initdata", "remove", "web", "--expected", 7, "--json"))["status"] == 412
    assert FIRST["digest_hex"] in values(run)
    assert good_json(run("initdata", "list", "--json"))[0]["owner"] == "a"


@pytest.mark.parametrize(
    ("name", "owner"),
    [("", "a"), ("-x", "a"), (".x", "a"), ("x" * 129, "a"), ("x", ""), ("x", "\x1b[1m"), ("x", "a" * 129)],
    ids=["no name", "dash", "dot", "long", "no owner", "escape", "long owner"],
)  # fmt: skip
def test_names_and_owners_outside_their_grammar(run: Run, file: Any, name: str, owner: str) -> None:
    assert run("initdata", "register", file(RAW), "--name", name, "--owner", owner).exit_code in (1, 2)
    assert good_json(run("initdata", "list", "--json")) == []
    assert values(run) is None


def test_the_broker_reads_for_itself(broker: BrokerUnderTest) -> None:
    for body, status in ((b"{}", 400), (b'{"owner":"a","document":"$"}', 400), (b'{"owner":"a","document":"eA"}', 400)):
        assert broker.admin("PUT", "admin/init-data/web", body).status == status
    assert broker.admin("GET", "admin/init-data").json == []
    assert broker.admin("GET", "admin/init-data/web").status == 404
    assert broker.admin("DELETE", "admin/init-data/web").status == 404


def test_who_may(broker: BrokerUnderTest, run: Run, file: Any, tmp_path: Path) -> None:
    auditor = tmp_path / "token"
    auditor.write_text(broker.token_for("auditor"))
    refused = run("initdata", "register", file(RAW), "--name", "web", "--owner", "a", "--token-file", auditor)
    assert refused.exit_code == 1
    assert run("initdata", "list", "--token-file", auditor).exit_code == 0
    auditor.write_text(broker.token_for("resource-writer"))
    assert run("initdata", "list", "--token-file", auditor).exit_code == 1
    assert run("initdata", "register", file(RAW), "--name", "web", "--owner", "a").exit_code == 0
    kinds = [(record["kind"], record.get("names")) for record in broker.audit_records()]
    assert ("reference.changed", ["init-data/web", DIGESTS]) in kinds


@pytest.mark.parametrize("before", [False, True])
def test_nothing_is_half_registered(broker: BrokerUnderTest, run: Run, file: Any, before: bool) -> None:
    """The reference values cannot be set: the register is as it was."""
    if before:
        run("initdata", "register", file(RAW), "--name", "web", "--owner", "a")
    provider = type(broker.broker.references)
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise StorageUnavailable("full")

        patch.setattr(provider, "register", full)
        assert run("initdata", "register", file(OTHER), "--name", "web", "--owner", "b").exit_code == 1
        if before:
            assert run("initdata", "remove", "web").exit_code == 1
    found = good_json(run("initdata", "list", "--json"))
    assert [(each["owner"], each["digest"]) for each in found] == ([("a", FIRST["digest_hex"])] if before else [])
    assert (FIRST["digest_hex"] in (values(run) or [])) is before


def origin(run: Run, asked: str) -> Any:
    return good_json(run("initdata", "explain", asked, "--json"))


def test_where_a_value_comes_from(run: Run, file: Any) -> None:
    for name, raw in (("web", RAW), ("back", OTHER)):
        run("initdata", "register", file(raw), "--name", name, "--owner", f"team {name}")
    fields = FIRST["expected_fields"]
    for name, tee in (("tdx_mrconfigid_48_hex", "tdx"), ("snp_hostdata_32_hex", "snp"), ("pcr8_sha256_hex", "tpm")):
        found = origin(run, fields[name])
        (match,) = found["matches"]
        assert (match["name"], match["owner"], match["how"], found["approved"]) == ("web", "team web", "exact", True)
        assert tee in match["tees"]
    for digest, how in (
        (VECTORS["negative"][0]["digest_sha256_hex"], "one line feed more at the end"),
        (VECTORS["negative"][3]["digest_sha256_hex"], "digest of the gzip data, not of the text"),
    ):
        found = origin(run, digest)
        assert ([(each["name"], each["how"]) for each in found["matches"]], found["approved"]) == (
            [("web", how)],
            False,
        )
    of_sample = base64.b64encode(bytes.fromhex(FIRST["digest_hex"])).decode()  # as its claim has it
    found = origin(run, of_sample)
    assert ([each["name"] for each in found["matches"]], found["approved"]) == (["web"], True)
    assert "sample" in found["matches"][0]["tees"]
    assert origin(run, "ab" * 32)["matches"] == []
    assert "unknown" in run("initdata", "explain", "ab" * 32).stdout
    for asked in ("ab", "AB" * 32, "ab" * 300):
        assert bad_json(run("initdata", "explain", asked, "--json"))["status"] in (400, 404)
    assert bad_json(run("initdata", "explain", "ab" * 16, "--json"))["status"] == 404
    for asked in ("x", "QUJD", "a/b/c/", of_sample[:-2], of_sample + "=", "\x1b[2J"):
        assert "is neither the claim init_data" in bad_json(run("initdata", "explain", asked, "--json"))["error"]


# --- the document -----------------------------------------------------------------------------------------------------

_VARYING = (
    (re.compile(r"\b[0-9a-f]{64,}\b"), "DIGEST"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"[A-Za-z0-9+/]{43}="), "DIGEST"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r" --data \S+"), ""),
    (re.compile(r"\s+"), " "),
)


def plain(text: str) -> list[str]:
    for pattern, name in _VARYING[:-1]:
        text = pattern.sub(name, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_document_runs_as_it_stands(
    ready: None, run: Run, broker: BrokerUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_bytes((broker.data / "tls/ca.pem").read_bytes())
    found = blocks(text_of(ROOT / "docs/init-data.md"))
    for block, name in zip(found[:2], ("web.yaml", "policy.rego"), strict=True):
        (tmp_path / name).write_text(block.text)
    decision = ""
    ran = 0
    for block, after in zip(found[2:], [*found[3:], Block("", "")], strict=True):
        if block.kind == "yaml":
            (tmp_path / "web-2.yaml").write_text(block.text)
        if block.kind != "sh":
            continue
        told = ""
        for line in block.text.strip().splitlines():
            words = shlex.split(line.replace("DECISION", decision))
            assert words.pop(0) == "kbs"
            on_files = words[0] == "initdata" and words[1] in ON_FILES
            result = invoke(None, *words) if on_files else run(*words)
            told += result.stdout + ("\n" if result.stdout and not result.stdout.endswith("\n") else "") + result.stderr
            named = re.search(r"decision ([0-9a-f]{32})", result.stderr)
            decision = named[1] if named else decision
        ran += 1
        if after.kind == "text":
            assert plain(told) == plain(after.text), block.text
    assert ran == 7
