"""The commands of a release, from publishing to tracing, against a provider in this process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from rvps import signing, value_set
from rvps.cli import connection, main
from rvps.cli import signing as signing_commands
from rvps.client import embedded
from rvps.publishers import model as publishers
from rvps.server.directory import Directory, Token
from rvps.server.metrics import Metrics
from rvps.server.reception import Reception
from rvps.server.web import Request, Web
from rvps.value_set import Artifact, ValueSet
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ADMIN, BROKER = "a" * 43, "b" * 43
AA, BB, CC = "aa" * 24, "bb" * 24, "cc" * 24
PUBLISHERS = """
[publishers.acme]
types = ["dsse"]
namespaces = ["snp_"]
keys = ["acme.pem.pub"]
approvals = 1
approvers = ["alice"]

[approvers.alice]
keys = ["alice.pem.pub"]
"""


class Bench:
    """A working directory, a provider that is reached by its REST edge, and a clock that stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = AT
        for name in ("acme", "alice"):
            key = signing.new_key("ed25519")
            (folder / f"{name}.pem").write_bytes(key.private_pem(None))
            (folder / f"{name}.pem.pub").write_bytes(key.public_pem)
        (folder / "publishers.toml").write_text(PUBLISHERS)
        (folder / "token").write_text(ADMIN)
        known = publishers.load(folder / "publishers.toml")
        provider = embedded(MemoryStore(), conflict=Conflict, unavailable=Unavailable, publishers=lambda: known)
        self.web = Web(
            reception=Reception(provider, lambda: self.at),
            directory=Directory(folder, Token(ADMIN), Token(BROKER)),
            clock=lambda: self.at,
            metrics=Metrics([]),
            insecure=(),
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        headers = {name.lower(): value for name, value in request.headers.items()}
        found = self.web.answer(Request(request.method, target, headers, request.content))
        return httpx.Response(found.status, content=found.body)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--url", "http://127.0.0.1", "--token-file", "token"])

    def json(self, *words: str, status: int = 0) -> Any:
        found = self.run(*words, "--json")
        assert found.exit_code == status, found.output
        return json.loads(found.stdout)

    def release(self, serial: int, value: str, *more: str, days: int = 90) -> str:
        """Sign, publish and approve one value; the digest of its statement."""
        made = ValueSet("guest", {"snp_launch_measurement": [value]}, (Artifact("OVMF.fd", {"sha256": "12" * 32}),))
        (self.folder / f"{serial}.set").write_bytes(value_set.write(made))
        words = ["--key", "acme.pem", "--serial", str(serial), "--days", str(days), "-o", f"{serial}.json", "--json"]
        signed = CliRunner().invoke(main, ["sign", f"{serial}.set", *words, *more])
        assert signed.exit_code == 0, signed.output
        assert self.json("publish", f"{serial}.json")["status"]["state"] == "draft"
        assert self.json("approve", f"{serial}.json", "--key", "alice.pem")["status"]["state"] == "active"
        digest: str = json.loads(signed.stdout)["statement"]
        return digest


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signing_commands, "system_clock", lambda: found.at)

    def client(url: str, _ca_file: Path | None) -> httpx.Client:
        return httpx.Client(base_url=url, transport=httpx.MockTransport(found))

    monkeypatch.setattr(connection, "http_client", client)
    return found


def test_a_statement_from_draft_to_revoked(bench: Bench) -> None:
    first = bench.release(1, AA)
    bench.at += timedelta(seconds=2)
    second = bench.release(2, BB)
    listed = bench.json("statements")
    assert [(one["digest"], one["state"]) for one in listed] == [(second, "active"), (first, "superseded")]
    assert bench.json("statements", "--state", "draft") == []
    assert bench.json("statements", "--series", "other") == []
    shown = bench.json("show", second[:12])
    assert shown["values"] == {"snp_launch_measurement": [BB]}
    assert [step["what"] for step in shown["steps"]] == ["stated", "approved", "active"]
    told = bench.run("show", second).stdout
    assert "OVMF.fd sha256:1212" in told
    assert f'snp_launch_measurement = ["{BB}"]' in told

    assert bench.json("revoke", "2.json", "--reason", "test key", "--key", "acme.pem")["status"]["state"] == "revoked"
    assert "revoked already" in bench.run("revoke", second, "--reason", "again").stderr
    assert bench.json("revoke", first[:16], "--reason", "too")["status"]["reason"].startswith("by admin:local#")


def test_why_goes_from_names_and_from_values(bench: Bench) -> None:
    first = bench.release(1, AA)
    bench.at += timedelta(seconds=2)
    bench.release(2, BB, "--known-bad", f'snp_launch_measurement="{CC}"')
    by_name = bench.json("why", "snp_launch_measurement")
    assert by_name["delivered"] == [BB]
    assert bench.json("why", BB)["name"] == "snp_launch_measurement"
    old = bench.json("why", AA, status=1)
    assert [mention["status"]["digest"] for mention in old["mentions"]] == [first]
    assert "superseded" in old["reason"]
    bad = bench.json("why", "snp_launch_measurement", f'"{CC}"', status=1)
    assert bad["reason"].startswith("known bad")
    assert bench.json("why", CC, status=1)["mentions"][0]["bad"] == [CC]
    assert bench.json("why", "nothing", status=1)["mentions"] == []
    told = bench.run("why", BB).stdout
    assert "delivered  yes: stated by acme" in told
    assert "ask a broker" in told


def test_diff_of_all_that_has_values(bench: Bench) -> None:
    first = bench.release(1, AA)
    bench.at += timedelta(seconds=2)
    second = bench.release(2, BB)
    change = {"name": "snp_launch_measurement", "before": [AA], "after": [BB], "removed": [AA], "added": [BB]}
    for before, after in ((first, second), ("1.set", "2.json"), ("1.json", second[:16]), ("1.set", "now")):
        assert bench.json("diff", before, after, status=1)["changes"] == [change]
    assert bench.json("diff", "2.set")["changes"] == []
    assert bench.json("diff", "now", "2.json")["changes"] == []
    Path("list.json").write_text(json.dumps(bench.json("list")))
    assert bench.json("diff", "list.json", "2.set")["changes"] == []
    told = bench.run("diff", "1.set")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[2:] == [
        f'- snp_launch_measurement = "{BB}"',
        f'+ snp_launch_measurement = "{AA}"',
    ]


def test_expiring_and_misses(bench: Bench) -> None:
    bench.release(1, AA, days=20)
    assert bench.json("expiring", "--within", "2w") == []
    (found,) = bench.json("expiring", status=1)
    assert (found["series"], found["serial"], found["names"]) == ("guest", 1, ["snp_launch_measurement"])
    assert "guest 1" in bench.run("expiring", "--within", "30d").stdout
    assert bench.json("misses") == []
    bench.run("query", "snp_lunch")
    assert bench.json("misses", status=1) == [{"name": "snp_lunch", "count": 1}]


def test_a_preview_stores_nothing(bench: Bench) -> None:
    bench.release(1, AA)
    (bench.folder / "m.json").write_text('{"version":"0.1.0","type":"sample","payload":"eyJzbnBfbHVuY2giOlsiMSJdfQ=="}')
    found = bench.json("publish", "m.json", "--dry-run")
    assert [(change["name"], change["kind"]) for change in found["changes"]] == [("snp_lunch", "new")]
    assert bench.run("query", "snp_lunch").exit_code == 1
    assert "would be active" in bench.run("publish", "m.json", "--dry-run").stdout


OLD = ["--key", "acme.pem", "--serial", "1", "--days", "1", "-o", "old.json"]
WRONG: list[tuple[str, list[str], int, str]] = [
    ("publish an older serial", ["publish", "old.json"], 1, "is not newer than 1"),
    ("publish nothing", ["publish"], 2, "name one message"),
    ("publish twice", ["publish", "1.json", "-p", "1.json"], 2, "name one message"),
    ("publish a set", ["publish", "1.set"], 1, "`type` is missing"),
    ("publish to gRPC, dry", ["publish", "1.json", "--dry-run", "-a", "http://127.0.0.1:1"], 2, "--dry-run"),
    ("approve a prefix", ["approve", "{digest:.16}", "--key", "alice.pem"], 1, "whole digest"),
    ("approve one's own", ["approve", "1.json", "--key", "acme.pem"], 1, "no approver"),
    ("approve another serial", ["approve", "1.json", "--key", "alice.pem", "--serial", "2"], 1, "serial 1"),
    ("approve without a key", ["approve", "1.json"], 2, "--key"),
    ("approve with a public key", ["approve", "1.json", "--key", "alice.pem.pub"], 1, "not a private key"),
    ("approve nobody's", ["approve", "ab" * 32, "--key", "alice.pem"], 1, "no statement"),
    ("revoke nobody's", ["revoke", "ab" * 32, "--reason", "x"], 1, "no such statement"),
    ("revoke without reason", ["revoke", "1.json"], 2, "--reason"),
    ("revoke in two lines", ["revoke", "1.json", "--reason", "a\nb"], 1, "one printable line"),
    ("revoke in two lines, signed", ["revoke", "1.json", "--reason", "a\nb", "--key", "acme.pem"], 1, "reason"),
    ("revoke with a password alone", ["revoke", "1.json", "--reason", "x", "--password-file", "token"], 2, "--key"),
    ("revoke the path", ["revoke", "../x", "--reason", "x"], 1, "404"),
    ("show nothing", ["show", "ab" * 32], 1, "no such statement"),
    ("show a path", ["show", "../../x"], 1, "404"),
    ("state that is none", ["statements", "--state", "gone"], 2, "gone"),
    ("diff of nothing", ["diff", "nothing"], 1, "no such file"),
    ("diff of a key", ["diff", "alice.pem", "1.set"], 1, "alice.pem"),
    ("diff of an approval", ["diff", "approval.json", "1.set"], 1, "states no values"),
    ("diff of an unknown digest", ["diff", "ab" * 32, "1.set"], 1, "no such statement"),
    ("duration that is none", ["expiring", "--within", "soon"], 2, "30d"),
    ("duration without unit", ["expiring", "--within", "30"], 2, "30d"),
    ("duration of centuries", ["expiring", "--within", "99999w"], 1, "number of seconds"),
    ("drift of a provider", ["drift"], 1, "ask a broker"),
    ("drift of too many", ["drift", "--last", "10001"], 2, "10001"),
    ("claims without a file", ["drift", "--claims", "ab" * 16], 2, "-o FILE"),
    ("why without a word", ["why"], 2, "NAME|VALUE"),
    ("why of deep JSON", ["why", "snp_launch_measurement", "[" * 90_000], 1, "shorter"),
]


@pytest.mark.parametrize(("words", "status", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_input_is_told(bench: Bench, words: list[str], status: int, said: str) -> None:
    digest = bench.release(1, AA)
    for sign in (["sign-approval", digest, "--key", "alice.pem", "-o", "approval.json"], ["sign", "1.set", *OLD]):
        assert CliRunner().invoke(main, sign).exit_code == 0
    before = bench.json("statements")
    found = bench.run(*(word.format(digest=digest) if word.startswith("{") else word for word in words), "--json")
    assert found.exit_code == status, found.output
    assert said in found.output.replace("\n│ ", " ")
    if status == 1:
        assert "\nNext: " in found.stderr
        assert found.stdout == ""
    assert bench.json("statements") == before


def test_without_a_token_nothing_is_seen(bench: Bench) -> None:
    bench.release(1, AA)
    for words in (
        ["statements"],
        ["show", "ab" * 32],
        ["why", "a"],
        ["expiring"],
        ["drift"],
        ["misses"],
        ["diff", "1.set"],
    ):
        found = CliRunner().invoke(main, [*words, "--url", "http://127.0.0.1"])
        assert (found.exit_code, "401" in found.stderr) == (1, True), words
