"""What `rvps serve` refuses before it listens, and why."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest

from rvps import cli
from rvps.errors import SettingsUnacceptable
from rvps.server.serve import Options, is_loopback, split_address

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

Prepare = Callable[[Path], object]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command sends the log of its process to its own stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _nothing(_: Path) -> None:
    pass


CASES: dict[str, tuple[list[str], Prepare, str]] = {
    "no address": (["--listen", "nonsense"], _nothing, "'nonsense' is not HOST:PORT"),
    "no port": (["--listen", "127.0.0.1:99999"], _nothing, "is not HOST:PORT"),
    "no REST address": (["--rest-listen", ":1"], _nothing, "is not HOST:PORT"),
    "not ours": (["--listen", "192.0.2.1:1", "--insecure-http"], _nothing, "not one of this machine"),
    "half a pair": (["--tls-cert", "x"], _nothing, "--tls-cert and --tls-key go together"),
    "no pair": (["--tls-cert", "x", "--tls-key", "y"], _nothing, "No such file"),
    "bad pair": (["--tls-cert", __file__, "--tls-key", __file__], _nothing, "not a PEM certificate"),
    "no host name": (["--listen", "0.0.0.0:0", "--name", "jürgen"], _nothing, "neither an address nor a host name"),
    "publishers": ([], lambda data: (data / "publishers.toml").write_text("x = 1"), "unknown member 'x'"),
    "token": ([], lambda data: (data / "admin-token").write_text("short"), "holds no token"),
    "database": ([], lambda data: (data / "rvps.db").write_text("nonsense"), "not a database"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_said_before_anything_listens(case: str, tmp_path: Path) -> None:
    options, prepare, words = CASES[case]
    prepare(tmp_path)
    listen = [] if "--listen" in options else ["--listen", "127.0.0.1:0"]
    done = click.testing.CliRunner().invoke(cli.main, ["serve", "--data", str(tmp_path), *listen, *options])
    assert done.exit_code == 1
    assert words in done.output
    assert "Next: " in done.output


@pytest.mark.parametrize("option", ["--listen", "--rest-listen"])
def test_a_port_in_use_is_said(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        listen = [] if option == "--listen" else ["--listen", "127.0.0.1:0"]
        done = click.testing.CliRunner().invoke(
            cli.main, ["serve", "--data", str(tmp_path / "data"), *listen, option, address]
        )
    assert done.exit_code == 1
    assert "in use" in done.output


def test_addresses_are_taken_apart() -> None:
    assert split_address("[::1]:50003") == ("::1", 50003)
    assert split_address("localhost:0") == ("localhost", 0)
    for text in ("", "host", "host:", ":1", "host:65536", "host:-1", "host:\uff11"):
        with pytest.raises(SettingsUnacceptable):
            split_address(text)
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "::", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_unsafe_options_are_named() -> None:
    options = Options(Path("/d"), "127.0.0.1:0", insecure_unsigned=True, insecure_http=True)
    assert options.switches() == ("--insecure-unsigned", "--insecure-http")
    assert Options(Path("/d"), "127.0.0.1:0").switches() == ()
