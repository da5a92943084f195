"""What the image is made from, without building it: `make test-image` does that."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from image import build, compiled
from image.__main__ import BUILDERS, command
from image.locked import needed, read_lock, roots_of
from image.sbom import owners

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
EXTRAS = ("pkcs11", "vault")
_HASH = "    --hash=sha256:" + "0" * 64


def lock_text() -> str:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8")


def required(found: Distribution, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What a distribution's own metadata asks for here."""
    wanted: set[tuple[str, frozenset[str]]] = set()
    for text in found.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            wanted.add((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return wanted


def test_what_the_lock_is_read_to_need_is_what_the_packages_ask_for() -> None:
    """Read from comments; compared with what is installed."""
    pins = {pin.name for pin in needed(read_lock(lock_text()), roots_of(PYPROJECT, EXTRAS))}
    pending = required(distribution("kbs"), frozenset(EXTRAS))
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        name, extras = pending.pop()
        seen.add((name, extras))
        pending |= required(distribution(name), extras) - seen
    assert {name for name, _ in seen} <= pins
    assert not pins & {"pytest", "mypy", "ruff", "hypothesis", "matplotlib", "pip", "setuptools", "hatchling", "boto3"}


def test_every_pin_keeps_its_hashes() -> None:
    pins = needed(read_lock(lock_text()), ["cryptography"])
    assert {pin.name for pin in pins} >= {"cryptography", "cffi", "pycparser"}
    for pin in pins:
        assert re.fullmatch(r"[^\s=]+==\S+( ; [^\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", pin.text), (
            pin.text
        )


def test_a_small_lock() -> None:
    text = (
        f"# made\na==1 \\\n{_HASH}\n    # via kbs (pyproject.toml)\n"
        f"B_b[x]==2 \\\n{_HASH} \\\n{_HASH}\n    # via\n    #   a\n    #   C.c\n"
        f"c-c==3 \\\n{_HASH}\n"
    )
    lock = read_lock(text)
    assert {name: pin.asked_by for name, pin in lock.items()} == {"a": {"kbs"}, "b-b": {"a", "c-c"}, "c-c": set()}
    assert [pin.name for pin in needed(lock, ["A"])] == ["a", "b-b"]
    assert lock["b-b"].text == f"B_b[x]==2 \\\n{_HASH} \\\n{_HASH}\n"


@pytest.mark.parametrize("line", ["a>=1", "-e .", "--index-url https://example.org", "a @ file:///x"])
def test_a_lock_with_something_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no pin"):
        read_lock(line)


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the lock: nope"):
        needed(read_lock(lock_text()), ["nope"])
    with pytest.raises(ValueError, match="no extra dev, nope: there are "):
        roots_of(PYPROJECT, ["nope", "vault", "dev"])


@pytest.mark.parametrize(("extra", "path"), [("fast", compiled.SOURCES), ("image", compiled.COMPILER)])
def test_what_is_compiled_and_its_compiler_are_one_pin_each(extra: str, path: Path) -> None:
    (pin,) = read_lock((ROOT / path).read_text(encoding="utf-8")).values()
    (text,) = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"][extra]
    wanted = Requirement(text)
    found = Requirement(pin.text.partition(" ")[0])
    assert found.name == wanted.name
    (version,) = found.specifier
    assert wanted.specifier.contains(version.version)
    assert pin.text.count("--hash=sha256:") > 0
    with pytest.raises(ValueError, match=f"no extra {extra}"):
        roots_of(PYPROJECT, [extra])


def test_nothing_of_how_the_base_was_built_is_used(tmp_path: Path) -> None:
    """What setuptools would else read from Python's own build is all replaced."""
    given = compiled.commands(tmp_path / "zig", Path("/usr/include/python3.11"), Path("/lib/libc.so.6"))
    assert {*given} == {"CC", "CFLAGS", "LDSHARED", "LDFLAGS"}
    assert given["CFLAGS"] == given["LDFLAGS"] == ""
    assert given["CC"].startswith(f"{tmp_path}/zig cc -target {platform.machine()}-linux-gnu.")
    assert {"-mcpu=baseline", "-g0"} <= {*given["CC"].split()}, "another machine's processor, or folders of the build"
    assert given["CC"].endswith("-idirafter /usr/include")
    assert given["LDSHARED"].split()[1:3] == ["ld.lld", "-shared"]
    assert given["LDSHARED"].endswith(" /lib/libc.so.6")


def test_a_base_without_headers_gets_no_parser_and_a_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    assert compiled.headers() is None
    assert [*build._compiled(tmp_path / "none/bin/python3", tmp_path)] == []
    assert capsys.readouterr().out.startswith("no headers of Python in this base")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    assert compiled.headers() == tmp_path / "include"


def test_with_headers_what_cannot_be_had_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never an image without the parser because a server did not answer."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(subprocess.CalledProcessError):
        [*build._compiled(Path(sys.executable), tmp_path)]


@pytest.mark.parametrize("builder", BUILDERS)
def test_builders_are_given_the_same_arguments(builder: str) -> None:
    words = command(builder, {"VERSION": "1", "SOURCE_DATE_EPOCH": "7"}, ["--tag", "x"])
    assert words[:2] == [builder, "build"]
    assert words[-1] == "."
    assert "SOURCE_DATE_EPOCH=7" in words
    assert ("--timestamp" in words) == (builder != "docker")


def test_the_base_is_named_by_digest_and_the_user_by_number() -> None:
    text = (ROOT / "Containerfile").read_text()
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["65532:65532"]
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE_IMAGE}", "scratch", "scratch"]


def test_what_is_copied_is_let_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    names = {name.removeprefix("./").replace("[a]", "a") for line in copied for name in line.split()}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names - {"build/image/opa"})


def test_packages_of_the_base_are_those_that_own_a_file(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    for name, paths in {
        "libc6:amd64": ["/lib/x/libc.so.6"],
        "bash": ["/bin/bash"],
        "libssl3": ["/usr/lib/libssl.so.3"],
    }.items():
        (tmp_path / f"info/{name}.list").write_text("\n".join(["/.", *paths]))
    entries = [("libc6", "2.36"), ("bash", "5"), ("libssl3", "3.0")]
    (tmp_path / "status").write_text(
        "\n\n".join(
            f"Package: {name}\nDescription: x\n y: z\nVersion: {version}\nArchitecture: amd64"
            for name, version in entries
        )
    )
    files = [Path("/usr/lib/x/libc.so.6"), Path("/usr/lib/libssl.so.3")]
    assert {*owners(files, tmp_path)} == {("libc6", "2.36", "amd64"), ("libssl3", "3.0", "amd64")}
    assert [*owners(files, tmp_path / "none")] == []
