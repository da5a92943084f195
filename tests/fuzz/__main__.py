"""`python -m tests.fuzz [--seconds N] [NAME …]`: run fuzz targets one after the other, each in its own process.

Inputs that break a target are left in build/fuzz/NAME/. Ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FINDINGS = FOLDER.parents[1] / "build" / "fuzz"
NOT_TARGETS = {"__init__", "__main__", "vectors", "test_targets"}
NAMES = sorted({path.stem for path in FOLDER.glob("*.py")} - NOT_TARGETS)
INSTRUMENTED = ["kbs.attestation", "kbs.strict_json", "tests.fuzz"]


def fuzz(name: str, seconds: int) -> None:
    """Run one target in this process, which ends with it."""
    atheris: Any = importlib.import_module("atheris")  # not a dependency: `make fuzz` installs it beside the others
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(f"tests.fuzz.{name}")
    findings = FINDINGS / name
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            (Path(corpus) / f"{number:04}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={findings}/",
            "-max_len=65536",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        atheris.Setup([name, *options, corpus], target.check)
        atheris.Fuzz()


def run_each(names: list[str], seconds: int) -> int:
    """Run targets, print a line for each, and give the exit status."""
    failed = []
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--one", "--seconds", str(seconds), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        inputs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(
            f"{name:24} {'ok' if done.returncode == 0 else 'BROKEN':8} {inputs[0] if inputs else '-':>10} inputs",
            flush=True,
        )
        if done.returncode:
            failed.append(name)
            print(done.stdout[-4000:], done.stderr[-4000:], f"see {FINDINGS / name}", sep="\n")
    return 1 if failed else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description="Fuzz the parsers.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if given.one:
        fuzz(given.names[0], given.seconds)
    return run_each(given.names or NAMES, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
