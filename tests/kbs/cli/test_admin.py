"""`kbs admin`: tokens that work, are recorded first, and end when told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbs.cli import admin
from kbs.errors import AuditUnavailable
from kbs.protocol import base64url
from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import Run, bad_json, good_json, invoke


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch, broker: BrokerUnderTest) -> None:
    monkeypatch.setattr(admin, "system_clock", broker.clock)


def _claims(token: str) -> Any:
    return json.loads(base64url.decode(token.split(".")[1]))


def test_the_printed_token_works(broker: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    result = invoke(None, "admin", "token", "--data", broker.data, "--subject", "alice", "--role", "auditor")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    path = tmp_path / "token"
    path.write_text(result.stdout)
    assert run("status", "--token-file", path).exit_code == 0
    assert run("resource", "set", "a/b/c", "--file", "-", "--token-file", path, stdin=b"x").exit_code == 1


def test_the_record_stands_before_the_token_is_shown(broker: BrokerUnderTest) -> None:
    options = ("--subject", "alice", "--role", "auditor", "--lifetime", "15m", "--scope", "/kbs/v0/admin/status")
    found = good_json(invoke(None, "admin", "token", "--data", broker.data, *options, "--json"))
    record = broker.audit_records()[-1]
    assert record["kind"] == "admin.token_issued"
    assert (record["subject"], record["role"], record["token_id"]) == ("alice", "auditor", found["id"])
    assert record["expires"] == found["expires"] == "2026-06-15T12:15:00+00:00"
    assert found["token"] not in json.dumps(broker.audit_records())
    claims = _claims(found["token"])
    assert (claims["sub"], claims["jti"], claims["scope"]) == ("alice", found["id"], ["/kbs/v0/admin/status"])


def test_no_record_no_token(broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def append(self, events: object) -> None:
            raise AuditUnavailable("disk full")

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr("kbs.app.open_audit", lambda *_, **__: Full())
    result = invoke(None, "admin", "token", "--data", broker.data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "disk full" in result.stderr


def test_it_renews_the_token_of_the_data_directory(broker: BrokerUnderTest, run: Run) -> None:
    broker.clock.advance(23 * 3600)
    path = broker.data / "admin-token"
    result = invoke(None, "admin", "token", "--data", broker.data, "--out", path)
    assert result.exit_code == 0
    assert path.read_text().strip() not in result.output
    assert path.stat().st_mode & 0o777 == 0o600
    broker.clock.advance(23 * 3600)
    assert run("status").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--role", "nobody"), 1),
        (("--subject", "two words"), 1),
        (("--lifetime", "0s"), 1),
        (("--lifetime", "8d"), 1),
        (("--scope", "["), 1),
        (("--lifetime", "1"), 2),
        (("--lifetime", "h"), 2),
        (("--lifetime", "-1h"), 2),
        (("--lifetime", "²h"), 2),
        (("--lifetime", "9999999999d"), 2),
    ],
)
def test_what_nobody_may_have_is_not_made_and_not_recorded(
    broker: BrokerUnderTest, options: tuple[str, str], code: int
) -> None:
    before = broker.audit_records()
    result = invoke(None, "admin", "token", "--data", broker.data, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert broker.audit_records() == before


def test_revoked_is_over(broker: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "token"
    options = ("--data", broker.data, "--out", path, "--json")
    found = good_json(invoke(None, "admin", "token", *options))
    assert run("status", "--token-file", path).exit_code == 0
    assert run("admin", "revoke", found["id"]).exit_code == 0
    assert bad_json(run("status", "--token-file", path, "--json"))["status"] == 401


def test_without_a_data_directory_it_is_wrong_use(tmp_path: Path) -> None:
    assert invoke(None, "admin", "token").exit_code == 2
    assert invoke(None, "admin", "token", "--data", tmp_path).exit_code == 1
