"""Settings that contradict each other are refused, all of them at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbs.config import Settings, check, load, parse, port_of
from kbs.errors import ConfigInvalid
from kbs.server import gunicorn_settings

DATA = Path("/nonexistent")


def refused(**sections: Any) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        parse(sections)
    return str(caught.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "0.0.0.0:1", "[::1]:65535", "[::ffff:127.0.0.1]:80", "kbs.example-1.org:8080"]
)
def test_host_and_port_are_an_address(address: str) -> None:
    assert parse({"server": {"listen": [address], "admin_listen": "a:9"}}).server.listen == (address,)
    assert port_of(address) == int(address.split(":")[-1])


@pytest.mark.parametrize(
    "address",
    [
        "unix:/run/kbs.sock",
        "fd://3",
        "localhost",
        "8080",
        ":8080",
        "",
        "::1:8080",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "127.0.0.1:80 ",
        "127.0.0.1:80\n",
        "http://127.0.0.1:80",
        "127.0.0.1:-1",
    ],
)
@pytest.mark.parametrize("kind", ["listen", "admin_listen", "metrics_listen"])
def test_nothing_else_is(kind: str, address: str) -> None:
    """In particular no unix socket: listeners are told apart by their port."""
    given: Any = ["127.0.0.1:8080", address] if kind == "listen" else address
    assert f"server.{kind}: {address!r} is not HOST:PORT" in refused(server={kind: given})


@pytest.mark.parametrize(
    ("server", "named"),
    [
        ({"admin_listen": "10.0.0.1:8080"}, "server.admin_listen and server.listen"),
        ({"metrics_listen": "127.0.0.2:8080"}, "server.listen and server.metrics_listen"),
        (
            {"admin_listen": "10.0.0.1:1", "metrics_listen": "10.0.0.2:01"},
            "server.admin_listen and server.metrics_listen",
        ),
    ],
)
def test_kinds_of_listeners_share_no_port(server: dict[str, Any], named: str) -> None:
    assert f"{named} share port" in refused(server=server)


def test_guests_may_have_one_port_on_several_addresses() -> None:
    listen = ("10.0.0.1:80", "10.0.0.2:80")
    assert parse({"server": {"listen": [*listen], "admin_listen": "10.0.0.1:81"}}).server.listen == listen


def test_what_a_command_line_changed_is_checked_again() -> None:
    settings = parse({"server": {"admin_listen": "127.0.0.1:9"}})
    with pytest.raises(ConfigInvalid, match="share port 9"):
        check(replace(settings, server=replace(settings.server, listen=("127.0.0.1:9",))))


def test_every_problem_is_named_at_once() -> None:
    text = refused(
        server={"listen": [], "max_connections": 0, "workers": -1, "max_handshake_rate": -1, "max_body": 0},
        token={"lifetime_seconds": 0},
        attestation={"tees": ["sample"]},
    )
    for name in (
        "server.listen",
        "server.max_connections",
        "server.workers",
        "server.max_handshake_rate",
        "server.max_body",
        "token.lifetime_seconds",
        "insecure_sample",
    ):
        assert name in text


def test_a_store_in_memory_is_for_one_worker() -> None:
    """Others would not see what was revoked, nor which challenges were answered."""
    assert "storage.kind" in refused(storage={"kind": "memory"}, server={"workers": 2})
    settings = parse({"storage": {"kind": "memory"}})
    assert gunicorn_settings(DATA, settings)["workers"] == 1
    assert gunicorn_settings(DATA, Settings())["workers"] >= 1


def test_a_variable_that_is_a_section_and_a_value(tmp_path: Path) -> None:
    (tmp_path / "kbs.toml").write_text("")
    with pytest.raises(ConfigInvalid, match="no section"):
        load(tmp_path, {"KBS__SERVER": "1", "KBS__SERVER__WORKERS": "1"})
