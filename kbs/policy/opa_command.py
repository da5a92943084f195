"""The `opa` program in a subprocess with limits on time, memory and output.

The path is given by the settings; nothing is looked up here. Input is policy text of an administrator: hostile text
must cost no more than the limits.
"""

from __future__ import annotations

import json
import subprocess  # without a shell's expansion: fixed script, arguments as positional parameters
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.engine import PolicyKind
from kbs.policy.outcome import ENTRYPOINTS
from kbs.policy.rego_sources import CAPABILITIES

TIMEOUT: Final = 10  # seconds per step, of the clock and of CPU
_ADDRESS_SPACE: Final = 4 << 20  # KiB; the Go runtime reserves far more than it uses
_LARGEST_FILE: Final = 64 << 10  # blocks of 512 octets: 32 MiB
_MODULE_LIMIT: Final = 16 << 20
_OUTPUT_LIMIT: Final = 8 << 20
_LIMITED: Final = (
    f'ulimit -t {TIMEOUT} && ulimit -v {_ADDRESS_SPACE} && ulimit -f {_LARGEST_FILE} && ulimit -c 0 && exec "$0" "$@"'
)
_SIGNALS: Final = 128  # what the shell adds to the number of the signal that ended a program
TEXT_NAME: Final = "policy.rego"


@dataclass(frozen=True, slots=True)
class Completed:
    """How one run of `opa` ended."""

    code: int
    stdout: bytes
    stderr: str

    def json(self) -> Any:
        """The answer of a command run with `--format json`.

        Raises:
            PolicyUnacceptable: it is none.
        """
        try:
            return json.loads(self.stdout)
        except (ValueError, RecursionError) as err:
            raise PolicyUnacceptable("opa gave no usable answer for this policy") from err


@dataclass(frozen=True, slots=True)
class OpaCommand:
    """One `opa` program."""

    path: Path

    def version(self) -> str:
        """For example `1.22.0`.

        Raises:
            PolicyCompilerMissing: it does not run.
        """
        with tempfile.TemporaryDirectory() as folder:
            done = self.run(["version"], Path(folder))
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name == "Version":
                return value.strip()
        raise PolicyCompilerMissing("the configured opa does not tell its version; get one with: kbs opa install")

    def run(self, arguments: Sequence[str], folder: Path, *, feed: bytes = b"") -> Completed:
        """Run in `folder`, whose files the arguments name relatively.

        Raises:
            PolicyCompilerMissing: there is no such program, or it is another one: `opa` never fails without a word.
            PolicyUnacceptable: it took too long.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                code = subprocess.run(  # noqa: S603 - the operator's program, no shell text from outside
                    ["/bin/sh", "-c", _LIMITED, str(self.path), *arguments],
                    cwd=folder,
                    env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "GOMAXPROCS": "2"},
                    input=feed,
                    stdout=out,
                    stderr=err,
                    timeout=TIMEOUT,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as late:
                raise PolicyUnacceptable(f"opa needed more than {TIMEOUT} seconds for this policy") from late
            except OSError as missing:
                raise PolicyCompilerMissing("opa cannot be run here; get it with: kbs opa install") from missing
            out.seek(0)
            err.seek(0)
            done = Completed(code, out.read(_OUTPUT_LIMIT), err.read(65536).decode("utf-8", "replace"))
        if code in (126, 127) or (0 < code < _SIGNALS and not done.stdout and not done.stderr.strip()):
            raise PolicyCompilerMissing("opa cannot be run here; get it with: kbs opa install")
        return done

    def build(self, kind: PolicyKind, modules: Mapping[str, str], text: str) -> bytes:
        """Compile a text with its library to WebAssembly. The same input gives the same bytes.

        Raises:
            PolicyUnacceptable: it does not compile.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = write_modules(folder, modules, text)
            entry = [word for point in ENTRYPOINTS[kind] for word in ("-e", point)]
            done = self.run(
                ["build", "-t", "wasm", *entry, "--capabilities", str(CAPABILITIES), "-o", "bundle.tar.gz", *files],
                folder,
            )
            if done.code != 0:
                why = done.stderr or done.stdout.decode("utf-8", "replace")
                raise PolicyUnacceptable(f"the policy does not compile: {why[:1000]}")
            with tarfile.open(folder / "bundle.tar.gz") as bundle:
                module = bundle.extractfile("/policy.wasm")
                if module is None:
                    raise PolicyUnacceptable("opa built no WebAssembly module for this policy")
                wasm = module.read(_MODULE_LIMIT + 1)
        if len(wasm) > _MODULE_LIMIT:
            raise PolicyUnacceptable("the compiled policy is too large")
        return wasm


def write_modules(folder: Path, modules: Mapping[str, str], text: str) -> list[str]:
    """Write the library and the policy, and return their relative names, in order."""
    files = sorted({**modules, TEXT_NAME: text}.items())
    for name, content in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")
    return [name for name, _ in files]
