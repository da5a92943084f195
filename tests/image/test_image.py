"""The image holds what it should and nothing else, and runs under the restricted profile."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from image import compiled
from image.__main__ import version
from image.locked import read_lock
from kbs.client.guest import GuestClient
from tests.fakes.running_broker import free_port, request
from tests.image.conftest import ROOT, Buildah
from tests.image.container import Container, started

_USER = 65532
_SOURCES = ROOT / compiled.SOURCES
_SBOM = "usr/share/sbom/kbs.cdx.json"
_DRAIN = 1


def files(tree: Path) -> Iterator[Path]:
    """All of them, and folders; links are not followed."""
    for folder, folders, names in os.walk(tree):
        yield from (Path(folder) / name for name in (*folders, *names))


def test_what_its_configuration_says(configuration: Mapping[str, Any]) -> None:
    labels = configuration["Labels"]
    named = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in labels.items()
        if "opencontainers" in name
    }
    assert {"version": version(), "revision": "0" * 40, "licenses": "Apache-2.0"}.items() <= named.items()
    assert named["source"].startswith("https://")
    assert configuration["User"] == f"{_USER}:{_USER}"
    assert configuration["Entrypoint"] == ["/opt/kbs/bin/kbs"]
    assert configuration["Cmd"] == ["serve", "--data", "/var/lib/kbs"]
    assert [*configuration["Volumes"]] == ["/var/lib/kbs"]
    assert configuration["StopSignal"] == "SIGTERM"
    assert {"8080", "8081", "8082"} == {port.partition("/")[0] for port in configuration["ExposedPorts"]}


def test_its_user_can_write_nowhere_but_to_the_volume(tree: Path) -> None:
    writable = []
    for path in files(tree):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            continue
        own = found.st_uid == _USER or (found.st_gid == _USER and found.st_mode & stat.S_IWGRP)
        if own or found.st_mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID):
            writable.append("/" + str(path.relative_to(tree)))
    assert writable == ["/var/lib/kbs"]


def test_nothing_in_it_starts_other_programs(tree: Path) -> None:
    """The programs are Python, our two and, where it was given, opa; nothing of a build, nothing to install with."""
    programs = {
        str(path.relative_to(tree))
        for path in files(tree)
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111 and ".so" not in path.name
    }
    outside = {name for name in programs if not name.startswith(("usr/lib/python3", "opt/kbs/lib/python3", "lib"))}
    assert outside - {"usr/local/bin/opa"} == {"usr/bin/python3.11", "opt/kbs/bin/kbs", "opt/kbs/bin/rvps"}
    names = {path.name for path in files(tree)}
    assert not names & {
        "sh",
        "bash",
        "dash",
        "busybox",
        "pip",
        "pip3",
        "ensurepip",
        "gcc",
        "cc",
        "zig",
        "apt",
        "apt-get",
        "dpkg",
        "ldd",
    }
    assert not [name for name in names if name.startswith(("pip-", "setuptools-", "ziglang"))]
    assert not [name for name in names if name.endswith((".c", ".h", ".a", ".o"))]


def test_it_has_no_times_of_its_build(tree: Path, buildah: Buildah, images: list[str]) -> None:
    assert {int(path.lstat().st_mtime) for path in files(tree)} == {1_700_000_000}
    first, second = (buildah.inspect(name)["OCIv1"]["rootfs"]["diff_ids"] for name in images)
    assert first == second
    compiled = [path for path in files(tree) if path.suffix == ".pyc"]
    assert len(compiled) > 1000
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\0\0\0"}  # PEP 552: by hash, not checked


def test_the_list_of_ingredients_is_complete_and_has_nothing_else(tree: Path) -> None:
    text = (tree / _SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    listed = {
        (canonicalize_name(each["name"]), each["version"])
        for each in document["components"]
        if each["purl"].startswith("pkg:pypi/")
    }
    heads = [HeaderParser().parsestr(path.read_text()) for path in tree.rglob("*.dist-info/METADATA")]
    assert listed == {(canonicalize_name(head["Name"]), head["Version"]) for head in heads}
    (parser,) = read_lock(_SOURCES.read_text()).values()
    assert {("kbs", version()), (parser.name, parser.text.partition(" ")[0].partition("==")[2])} <= listed
    tools = {"pytest", "mypy", "ruff", "hatchling", "pip", "cyclonedx-python-lib", "setuptools", "ziglang"}
    assert not {name for name, _ in listed} & tools
    (python,) = (each["version"] for each in document["components"] if each["purl"].startswith("pkg:generic/python@"))
    assert (tree / f"usr/lib/python{python.rpartition('.')[0]}/os.py").exists()
    assert document["metadata"]["component"]["version"] == version()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tree: Path, configuration: Mapping[str, Any]) -> Path:
    """A volume, filled by `kbs init` in the container."""
    folder = tmp_path_factory.mktemp("volume") / "kbs"
    folder.mkdir(mode=0o700)
    os.chown(folder, _USER, _USER)
    for above in (folder.parent, folder.parent.parent):
        above.chmod(0o755)
    arguments = ["init", "/var/lib/kbs", "--insecure-sample"]
    with started(tree, configuration, arguments, {"/var/lib/kbs": folder}) as container:
        assert container.process.wait(60) == 0, container.log.read_text()
    assert {path.stat().st_uid for path in folder.rglob("*")} == {_USER}
    return folder


class Running:
    """The broker in its container."""

    def __init__(self, container: Container, data: Path, port: int, probes: int, seconds: float) -> None:
        self.container, self.data, self.port, self.probes, self.seconds = container, data, port, probes, seconds

    def kbs(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`kbs` in the container, as an operator with `kubectl exec` would; there is no shell to type it in."""
        return self.container.execute("/opt/kbs/bin/kbs", *arguments)


@pytest.fixture(scope="module")
def running(tree: Path, configuration: Mapping[str, Any], data: Path) -> Iterator[Running]:
    port, probes = free_port(), free_port()
    env = [
        f'KBS__SERVER__LISTEN=["127.0.0.1:{port}"]',
        f"KBS__SERVER__METRICS_LISTEN=127.0.0.1:{probes}",
        f"KBS__SERVER__DRAIN_SECONDS={_DRAIN}",
        "KBS__SERVER__WORKERS=1",
        "KBS__ENDORSEMENTS__NETWORK=false",
    ]
    begin = time.monotonic()
    with started(tree, configuration, None, {"/var/lib/kbs": data}, env=env) as container:
        made = Running(container, data, port, probes, 0.0)
        while ready(made) != 200:
            assert container.process.poll() is None, container.log.read_text()
            assert time.monotonic() - begin < 60, container.log.read_text()
            time.sleep(0.05)
        made.seconds = time.monotonic() - begin
        yield made


def ready(running: Running) -> int:
    """What a probe sees; 0: nobody listens."""
    return answer(running, running.probes, request("GET", "/readyz", "Connection: close"))


def answer(running: Running, port: int, octets: bytes) -> int:
    """The status; 0: nobody listens."""
    context = ssl.create_default_context(cafile=str(running.data / "tls/ca.pem"))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(octets)
            head = connection.recv(64)
            return int(head.split()[1]) if head else 0
    except OSError:
        return 0


def test_it_runs_without_any_right(running: Running) -> None:
    status = running.container.status()
    assert {status["Uid"], status["Gid"]} == {"\t".join([str(_USER)] * 4)}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    tried = running.container.execute("/opt/kbs/bin/python", "-c", "open('/opt/kbs/x', 'w')")
    assert "Read-only file system" in tried.stderr
    assert "no such file" in running.container.execute("/bin/sh").stderr
    print(f"ready after {running.seconds:.2f} s")


def test_it_parses_http_heads_in_c(running: Running) -> None:
    """gunicorn's parser in Python would answer this with 501."""
    asked = "from kbs.web.connection import BrokerProtocol; print(BrokerProtocol._check_h1c_protocol_available())"
    done = running.container.execute("/opt/kbs/bin/python", "-c", asked)
    assert done.stdout == "True\n", done.stderr
    assert answer(running, running.port, request("POST", "/kbs/v0/auth", "Transfer-Encoding: nope")) == 400


def test_a_guest_gets_its_secret_from_it(running: Running) -> None:
    """With what `kubectl exec` has: `kbs` itself."""
    where = ["--data", "/var/lib/kbs", "--url", f"https://localhost:{running.port}"]
    secret = running.data / "secret"
    secret.write_bytes(b"open sesame")
    os.chown(secret, _USER, _USER)
    for arguments in (
        ["resource", "set", "default/key/1", "--file", "/var/lib/kbs/secret"],
        ["policy", "set-resource", "--shipped", "sample-demo"],
        ["reference", "set", "svn", '["1"]'],
        ["reference", "set", "launch_digest", '["abcde"]'],
        ["reference", "set", "major_version", "1"],
        ["reference", "set", "minimum_minor_version", "4"],
    ):
        done = running.kbs(*arguments, *where)
        assert done.returncode == 0, done.stdout + done.stderr
    with GuestClient(f"https://localhost:{running.port}", ca_file=running.data / "tls/ca.pem") as guest:
        guest.attest()
        assert guest.get_resource("default/key/1") == b"open sesame"


def test_sigterm_drains_it(running: Running) -> None:
    """The last test of the module: not ready first, then status 0, within Kubernetes' default grace of 30 s."""
    begin = time.monotonic()
    assert running.container.terminate() == 0
    assert _DRAIN <= time.monotonic() - begin < 30
    for line in running.container.log.read_text().splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line
