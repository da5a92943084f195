"""A token in software for tests. Without SoftHSM they are skipped and counted; REQUIRE_SOFTHSM=1: they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PIN = "pin-CANARY-1"
LABEL = "tests"
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


@dataclass(frozen=True)
class SoftToken:
    """A token with PIN `PIN` and label `LABEL` in the first slot."""

    module: Path
    folder: Path
    environment: dict[str, str]


def find_module() -> Path | None:
    """KBS_SOFTHSM, or where distributions put it."""
    for candidate in (os.environ.get("KBS_SOFTHSM"), *_MODULES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def new_token(module: Path, folder: Path) -> SoftToken:
    """Make one. The module reads SOFTHSM2_CONF when it starts."""
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(configuration)}
    words = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", "so-pin-1", "--pin", PIN]
    words += ["--module", str(module)]
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    (folder / "pin").write_text(PIN + "\n")
    return SoftToken(module, folder, environment)


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftToken]:
    """One for this process: a module is started once."""
    module = find_module()
    if module is None or shutil.which("softhsm2-util") is None:
        if os.environ.get("REQUIRE_SOFTHSM") == "1":
            pytest.fail(
                "REQUIRE_SOFTHSM=1, and there is no SoftHSM (softhsm2-util on PATH, libsofthsm2.so, KBS_SOFTHSM)"
            )
        pytest.skip("needs softhsm")
    made = new_token(module, tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", made.environment["SOFTHSM2_CONF"])
        yield made


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of SoftHSM."""
    missed = [report for report in terminalreporter.stats.get("skipped", []) if "needs softhsm" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(f"{len(missed)} PKCS#11 tests did not run: no SoftHSM here; `make softhsm` gets it")
