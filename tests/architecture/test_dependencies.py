"""Declared dependencies and imports agree, and the lock file fits the declaration."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"image", "kbs", "rvps", "tests"}

IMPORT_NAMES: Mapping[str, str] = {
    "azure-core": "azure",
    "azure-identity": "azure",
    "azure-keyvault-secrets": "azure",
    "cyclonedx-python-lib": "cyclonedx",
    "dcap-qvl": "dcap_qvl",
    "gmssl-pyx": "gmssl_pyx",
    "google-api-core": "google",
    "google-auth": "google",
    "google-cloud-secret-manager": "google",
    "google-re2": "re2",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-tools": "grpc_tools",
    "import-linter": "importlinter",
    "kubernetes-validate": "kubernetes_validate",
    "opa-python-client": "opa_client",
    "prometheus-client": "prometheus_client",
    "protobuf": "google",
    "pytest-socket": "pytest_socket",
    "pytest-xdist": "xdist",
    "python-pkcs11": "pkcs11",
    "pyyaml": "yaml",
    "sev-snp-measure": "sevsnpmeasure",
}
USED_BY_NAME: Mapping[str, tuple[str, str]] = {
    "editables": ("Makefile", "--no-build-isolation --no-deps -e ."),
    "hatchling": ("pyproject.toml", 'build-backend = "hatchling.build"'),
    "import-linter": ("Makefile", "lint-imports"),
    "mypy": ("Makefile", "$(BIN)/mypy"),
    "pip-tools": ("Makefile", "pip-compile"),
    "pytest-socket": ("pyproject.toml", "--disable-socket"),
    "pytest-xdist": ("Makefile", "pytest -q -n"),
    "ruff": ("Makefile", "ruff check"),
    "setuptools": ("Makefile", "--no-build-isolation --no-deps --require-hashes -r requirements-fast.lock"),
    "types-grpcio": ("Makefile", "$(BIN)/mypy"),
    "types-jsonschema": ("Makefile", "$(BIN)/mypy"),
    "types-protobuf": ("Makefile", "$(BIN)/mypy"),
    "types-pyyaml": ("Makefile", "$(BIN)/mypy"),
    "uv": ("Makefile", "$(BIN)/uv pip install"),
    "uvloop": ("kbs/server.py", '"asgi_loop": "uvloop"'),
    "werkzeug": ("pyproject.toml", "werkzeug>=3.1.9"),  # under flask; named for its floor alone
}
"""Needed without an import: the file and the words that need it."""

FLOORS = ("cryptography>=50", "jwcrypto>=1.6.1", "gunicorn==27.0.*", "werkzeug>=3.1.9", "opa-python-client==3.*")
"""Below these stand known vulnerabilities, or behaviour that was never tested here."""


def _names(texts: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in texts}


EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = [text for extra, texts in EXTRAS.items() if extra not in ("dev", "fast", "image") for text in texts]
RUNTIME = _names([*PROJECT["dependencies"], *OPTIONAL])
DEVELOPMENT = _names(EXTRAS["dev"])


@functools.cache
def _imported(*folders: str) -> frozenset[str]:
    found: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return frozenset(found - set(sys.stdlib_module_names) - OWN)


def _modules(distributions: Iterable[str]) -> set[str]:
    return {IMPORT_NAMES.get(name, name) for name in distributions}


def _locked() -> dict[str, tuple[str, int]]:
    """Name → version and number of hashes."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", line):
            name = canonicalize_name(match[1])
            found[name] = (match[2], 0)
        if "--hash=sha256:" in line:
            found[name] = (found[name][0], found[name][1] + 1)
    return found


def test_what_the_product_imports_is_declared() -> None:
    assert _imported("kbs", "rvps") <= _modules(RUNTIME)


def test_what_the_tests_import_is_declared() -> None:
    assert _imported("tests") <= _modules(RUNTIME | DEVELOPMENT)


@pytest.mark.parametrize("name", sorted(RUNTIME | DEVELOPMENT))
def test_every_declared_dependency_is_used(name: str) -> None:
    if name in USED_BY_NAME:
        file, words = USED_BY_NAME[name]
        assert words in (ROOT / file).read_text(encoding="utf-8")
        return
    folders = ("kbs", "rvps") if name in RUNTIME else ("tests",)
    assert IMPORT_NAMES.get(name, name) in _imported(*folders)


def test_nothing_is_declared_twice() -> None:
    texts = [*PROJECT["dependencies"], *EXTRAS["dev"], *OPTIONAL]
    assert len(_names(texts)) == len(texts)


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["dev"], *OPTIONAL, *FLOORS])
def test_the_lock_fits_every_range(text: str) -> None:
    requirement = Requirement(text)
    version, hashes = _locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)
    assert hashes > 0


def test_every_locked_version_has_hashes() -> None:
    locked = _locked()
    assert len(locked) > 40
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []


def test_a_wheel_brings_policies_roots_and_entry_points(tmp_path: Path) -> None:
    """Built by the backend that is installed: no network."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("kbs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        declared = archive.read(entry_points).decode()
    policies = {f"kbs/policy/shipped/{path.relative_to(ROOT / 'policies')}" for path in _files("policies")}
    roots = {path.relative_to(ROOT).as_posix() for path in _files("kbs/attestation/endorsements/roots")}
    assert any(name.endswith(".wasm") for name in policies)
    assert any(name.endswith(".pem") for name in roots)
    assert policies | roots | {"kbs/policy/capabilities.json", "rvps/cli/__init__.py"} <= names
    assert not [name for name in names if name.startswith("tests/")]
    assert any(name.endswith("licenses/NOTICE") for name in names)
    for script, place in PROJECT["scripts"].items():
        assert f"{script} = {place}" in declared
    for group, places in PROJECT["entry-points"].items():
        assert f"[{group}]" in declared
        assert all(f"{name} = {place}" in declared for name, place in places.items())


def _files(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*") if path.is_file()]
