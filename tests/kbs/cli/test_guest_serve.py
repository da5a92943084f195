"""`kbs guest --protocol` and `kbs guest serve`: options, wrong use, and a server that is asked for once."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

import click
import pytest

from kbs.cli.guest_serve import guest_server
from kbs.client.guest_rest import SoftwareGuest
from kbs.client.sample_attester import SampleAttester
from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import Run, good_json

SECRET = b"a \0 secret\n"


@pytest.mark.usefixtures("ready")
def test_an_old_guest_gets_its_secret(run: Run) -> None:
    result = run("guest", "get", "default/key/1", "--protocol", "0.2.0")
    assert (result.exit_code, result.stdout_bytes) == (0, SECRET)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("version", ["0.1.0-v0.8", "0.1.0", "0.1.1"])
def test_the_oldest_are_told_and_explained(run: Run, broker: BrokerUnderTest, version: str) -> None:
    refused = run("guest", "get", "default/key/1", "--protocol", version)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "422 JweError: RSA1_5 is switched off here" in refused.stderr
    decision = broker.audit_records()[-1]["decision"]
    assert good_json(run("explain", decision, "--json"))["protocol"] == version.partition("-")[0]
    assert f"  protocol     {version.partition('-')[0]}, an old guest" in run("explain", decision).stdout


@pytest.mark.usefixtures("ready")
def test_a_guest_of_today_is_not_called_old(run: Run, broker: BrokerUnderTest) -> None:
    run("guest", "get", "default/key/1")
    decision = broker.audit_records()[-1]["decision"]
    assert good_json(run("explain", decision, "--json"))["protocol"] == "0.4.0"
    assert "protocol" not in run("explain", decision).stdout


@pytest.mark.parametrize("version", ["0.3.0", "0.1", "", "1.0.0"])
def test_versions_that_are_not_played(run: Run, version: str) -> None:
    for command in (["get", "a/b/c"], ["token"], ["serve"]):
        result = run("guest", *command, "--protocol", version)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "0.1.0-v0.8" in result.stderr


def test_old_guests_have_no_init_data(run: Run, tmp_path: Path) -> None:
    document = tmp_path / "init.toml"
    document.write_text('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n')
    for command in (["get", "a/b/c"], ["token"], ["serve"]):
        result = run("guest", *command, "--protocol", "0.2.0", "--init-data", document)
        assert result.exit_code == 1
        assert "guests of protocol 0.2.0 have neither init data nor devices" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--listen", "0.0.0.0:8006"], ["--listen", "192.0.2.7:8006"], ["--listen", "[::]:8006"], ["--listen", "8006"],
        ["--listen", "127.0.0.1"], ["--listen", "127.0.0.1:65536"], ["--listen", "kbs.example:8006"],
        ["--listen", "127.0.0.1:٨٠"], ["--features", "everything"], ["--tee", "tdx"], ["--claim", "no=1"],
        ["--tee", "nothing"],
    ],
    ids=range(12),
)  # fmt: skip
def test_wrong_use_of_serve(run: Run, options: list[str]) -> None:
    result = run("guest", "serve", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error" in result.stderr


def _guest() -> SoftwareGuest:
    return SoftwareGuest("sample", SampleAttester(), lambda _: pytest.fail("asked"))


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.1:0", "example.org:0"])
def test_only_loopback_is_listened_on(listen: str) -> None:
    with pytest.raises(click.UsageError, match="loopback"):
        guest_server(_guest(), listen, "all")


@pytest.mark.enable_socket
def test_it_answers_over_a_socket_and_a_taken_port_is_told(run: Run) -> None:
    server, address = guest_server(_guest(), "localhost:0", "all")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert address == f"http://127.0.0.1:{server.server_port}"
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        connection.request("GET", "/aa/evidence?runtime_data=hello")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"svn": "1", "report_data": "aGVsbG8="}')
        connection.close()
        taken = run("guest", "serve", "--listen", f"127.0.0.1:{server.server_port}")
        assert taken.exit_code == 1
        assert "in use" in taken.stderr
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
