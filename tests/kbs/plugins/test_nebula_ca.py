"""Nebula credentials: what reaches the program, and what does not. The real one: KBS_NEBULA_CERT, or on PATH."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kbs.errors import ConfigInvalid, DependencyFault, MalformedMessage, ResourceNotFound
from kbs.plugins.model import PluginContext, PluginRequest
from kbs.plugins.nebula_ca import NebulaCaPlugin, build
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock

PROGRAM = r"""#!/bin/sh
# Stands in for nebula-cert: notes its words, and writes the files it was told to.
here=$(/usr/bin/dirname "$0")
if [ "$1" = -version ]; then echo "Version: VERSION"; exit 0; fi
for word in "$@"; do printf '%s\n' "$word" >> "$here/words"; done
[ -e "$here/broken" ] && { echo "CANARY key" >&2; exit 1; }
for word in "$@"; do
  case "$word" in
    -out-crt=*) printf 'CRT' > "${word#-out-crt=}" ;;
    -out-key=*) printf 'KEY' > "${word#-out-key=}" ;;
  esac
done
"""
GOOD = {"name": "web-1", "ip": "10.1.2.3/24"}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return stand_in(tmp_path)


def stand_in(folder: Path, version: str = "1.9.5") -> Path:
    path = folder / "nebula-cert"
    path.write_text(PROGRAM.replace("VERSION", version))
    path.chmod(0o700)
    return path


def make(folder: Path, program: Path, **options: Any) -> NebulaCaPlugin:
    given = {"work_dir": "nebula", "nebula_cert_bin_path": str(program), **options}
    return build(PluginContext(MemoryStore(), StoppedClock(), os.urandom, folder, given))


def ask(plugin: NebulaCaPlugin, query: Mapping[str, str], *path: str) -> Any:
    answer = plugin.handle(PluginRequest("GET", path or ("credential",), query))
    return {name: bytes(octets) for name, octets in json.loads(answer.payload.reveal()).items()}


def test_a_credential_and_nothing_left_behind(tmp_path: Path, program: Path) -> None:
    plugin = make(tmp_path, program)
    assert ask(plugin, GOOD) == {"node_crt": b"CRT", "node_key": b"KEY", "ca_crt": b"CRT"}
    assert [path.name for path in (tmp_path / "nebula").iterdir()] == ["ca"]
    assert stat.S_IMODE((tmp_path / "nebula").stat().st_mode) == 0o700
    words = (tmp_path / "words").read_text().splitlines()
    assert words[words.index("sign") :][1:3] == ["-name=web-1", "-ip=10.1.2.3/24"]


def test_an_authority_is_made_once(tmp_path: Path, program: Path) -> None:
    make(tmp_path, program, ca_config={"name": "n", "duration": "1h"})
    make(tmp_path, program)
    words = (tmp_path / "words").read_text().splitlines()
    assert words.count("ca") == 1
    assert {"-name=n", "-duration=1h"} <= set(words)


WRONG: Mapping[str, Mapping[str, str]] = {
    "nothing": {},
    "no ip": {"name": "a"},
    "no name": {"ip": "10.0.0.1/8"},
    "an option as name": {**GOOD, "name": "-out-key=/etc/x"},
    "a path as name": {**GOOD, "name": "../x"},
    "spaces": {**GOOD, "name": "a b"},
    "long name": {**GOOD, "name": "a" * 300},
    "no network": {**GOOD, "ip": "10.0.0.1"},
    "two": {**GOOD, "ip": "10.0.0.1/8,10.0.0.2/8"},
    "no address": {**GOOD, "ip": "300.0.0.1/8"},
    "length": {**GOOD, "ip": "10.0.0.1/99"},
    "duration": {**GOOD, "duration": "forever"},
    "negative duration": {**GOOD, "duration": "-1h"},
    "empty group": {**GOOD, "groups": "a,,b"},
    "option as group": {**GOOD, "groups": "-ca-key=x"},
    "subnets": {**GOOD, "subnets": "10.0.0.0/8,x"},
    "another option": {**GOOD, "out-key": "/tmp/x"},
    "another CA": {**GOOD, "ca-key": "/tmp/x"},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_well_formed_never_reaches_the_program(tmp_path: Path, program: Path, case: str) -> None:
    plugin = make(tmp_path, program)
    before = (tmp_path / "words").read_text()
    with pytest.raises(MalformedMessage):
        ask(plugin, WRONG[case])
    assert (tmp_path / "words").read_text() == before


def test_a_program_that_fails_is_an_outage_that_tells_nothing(tmp_path: Path, program: Path) -> None:
    plugin = make(tmp_path, program)
    (tmp_path / "broken").touch()
    with pytest.raises(DependencyFault) as caught:
        ask(plugin, GOOD)
    assert "CANARY" not in f"{caught.value}{caught.value.operator_detail}"
    assert [path.name for path in (tmp_path / "nebula").iterdir()] == ["ca"]


def test_other_paths(tmp_path: Path, program: Path) -> None:
    with pytest.raises(ResourceNotFound):
        ask(make(tmp_path, program), GOOD, "ca")


@pytest.mark.parametrize("version", ["1.9.4", "1.8.9", "0.99.99", "", "dev"])
def test_another_version_is_refused_at_start(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"1\.9\.5"):
        make(tmp_path, stand_in(tmp_path, version))


def test_settings_that_cannot_work(tmp_path: Path, program: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no program"):
        make(tmp_path, tmp_path / "absent")
    with pytest.raises(ConfigInvalid, match="self_signed_ca"):
        make(tmp_path, program, self_signed_ca={})
    (tmp_path / "broken").touch()
    with pytest.raises(ConfigInvalid, match="does not make a CA"):
        make(tmp_path, program)
    (tmp_path / "half/ca").mkdir(parents=True)
    (tmp_path / "half/ca/ca.crt").touch()
    with pytest.raises(ConfigInvalid, match="bring the other"):
        make(tmp_path, program, work_dir="half")


def test_the_real_program(tmp_path: Path) -> None:
    real = os.environ.get("KBS_NEBULA_CERT") or shutil.which("nebula-cert")
    if real is None:
        pytest.skip("needs nebula-cert")
    made = ask(make(tmp_path, Path(real)), {**GOOD, "duration": "1h", "groups": "a,b", "subnets": "10.9.0.0/16"})
    assert made["node_crt"].startswith(b"-----BEGIN NEBULA CERTIFICATE-----")
    assert made["node_key"].startswith(b"-----BEGIN NEBULA X25519 PRIVATE KEY-----")
