"""The `opa` part of `make check`: format, strict check and tests of every policy, and the rebuild of the modules.

All policies share `package policy`, so each is loaded by itself with the library. Without `opa` it ends by saying how
many checks did not run; with REQUIRE_OPA=1 that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from kbs.policy import build
from kbs.policy.engine import PolicyKind
from kbs.policy.rego_sources import modules, policies_folder
from tests.opa_binary import find_opa

_TIMEOUT = 60  # seconds for one check; they take a tenth of one


def library_modules() -> list[str]:
    """The modules of both kinds, by name relative to the folder of policies; each once."""
    return list(dict.fromkeys(name for kind in PolicyKind for name in modules(kind)))


SAMPLES = "samples/cpu.rego"  # what tests of policies begin with


def checks() -> dict[str, tuple[str, ...]]:
    """Name of each check → arguments of `opa`."""
    folder = policies_folder()
    library = [str(folder / name) for name in (*library_modules(), SAMPLES)]
    found: dict[str, tuple[str, ...]] = {
        "format": (
            "fmt",
            "--fail",
            "--list",
            *(str(folder / name) for name in ("evidence", "resource", "lib", "samples")),
        )
    }
    for test in sorted(folder.rglob("*_test.rego")):
        tested = str(test).replace("_test.rego", ".rego")
        files = (*dict.fromkeys((*library, tested)), str(test))
        name = test.relative_to(folder).as_posix().removesuffix("_test.rego")
        found[f"strict check of {name}"] = ("check", "--strict", *files)
        found[f"tests of {name}"] = ("test", *files)
    return found


def main(environment: Mapping[str, str]) -> int:
    """0 when everything that could run came out right, and nothing was required that could not."""
    wanted = checks()
    opa = find_opa()
    if opa is None:
        required = environment.get("REQUIRE_OPA") == "1"
        failed = build.main(["--check"], environment)
        print(f"{len(wanted)} OPA checks did not run: no opa here; `make opa` gets it")
        return 1 if failed or required else 0
    wrong = 0
    for name, arguments in wanted.items():
        done = subprocess.run([opa, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        if done.returncode != 0:
            wrong += 1
            print(f"{name}:\n{done.stdout}{done.stderr}", file=sys.stderr)
    print(f"{len(wanted)} OPA checks, {wrong} wrong")
    return 1 if build.main(["--check", "--opa", str(opa)], environment) or wrong else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
