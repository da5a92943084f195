"""Compile the shipped policies: `python -m kbs.policy.build [--check] [--opa PATH]`, which `make policies` calls.

The result is the same to the byte whoever builds it with the same OPA, so `--check` can prove that the committed
modules are what the committed texts say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kbs.errors import KbsError
from kbs.policy.engine import PolicyKind
from kbs.policy.install import OPA_VERSION
from kbs.policy.opa_command import OpaCommand
from kbs.policy.rego_sources import CAPABILITIES, modules, policies_folder, sha256_hex
from kbs.policy.shipped import MANIFEST, Shipped


def sources(folder: Path) -> list[str]:
    """Names of the policies that ship: all but tests of `evidence`, `resource` and their `upstream` folders."""
    found = [path for kind in PolicyKind for path in (folder / kind).rglob("*.rego")]
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in found if not path.stem.endswith("_test")
    )


def build(folder: Path, opa: OpaCommand) -> dict[str, bytes]:
    """Compile everything; returns the content of `manifest.json` and of `wasm/…` by relative name.

    Raises:
        PolicyUnacceptable: a policy does not compile.
    """
    libraries = {kind: modules(kind, folder) for kind in PolicyKind}
    files: dict[str, bytes] = {}
    policies: dict[str, Any] = {}
    for name in sources(folder):
        text = (folder / f"{name}.rego").read_bytes()
        kind = PolicyKind(name.partition("/")[0])
        wasm = opa.build(kind, libraries[kind], text.decode("utf-8"))
        target = f"wasm/{name.replace('/', '-')}.wasm"
        files[target] = wasm
        policies[name] = {"source_sha256": sha256_hex(text), "wasm": target, "wasm_sha256": sha256_hex(wasm)}
    manifest = {
        "opa": OPA_VERSION,
        "capabilities": sha256_hex(CAPABILITIES.read_bytes()),
        "library": {
            name: sha256_hex(text.encode("utf-8")) for library in libraries.values() for name, text in library.items()
        },
        "policies": policies,
    }
    files[MANIFEST] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode("utf-8")
    return files


def differences(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Names of committed files that differ from `files`, are missing, or should not be there."""
    present = {f"wasm/{path.name}" for path in (folder / "wasm").glob("*.wasm")}
    return sorted(
        name
        for name in present | files.keys()
        if name not in files or not (folder / name).is_file() or (folder / name).read_bytes() != files[name]
    )


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace the compiled modules and the manifest."""
    (folder / "wasm").mkdir(exist_ok=True)
    for stale in (folder / "wasm").glob("*.wasm"):
        if f"wasm/{stale.name}" not in files:
            stale.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """0 when all is built or, with `--check`, up to date.

    Without opa `--check` compares digests with the manifest and says so; with REQUIRE_OPA=1 that is a failure.
    """
    parser = argparse.ArgumentParser(prog="python -m kbs.policy.build", description="Compile the shipped policies.")
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing")
    parser.add_argument("--opa", type=Path, help="the opa program; default: the one on PATH, then ~/go/bin/opa")
    options = parser.parse_args(arguments)
    opa = OpaCommand(options.opa or Path(shutil.which("opa") or Path.home() / "go/bin/opa"))
    folder = policies_folder()
    try:
        if options.check and not opa.path.is_file() and environment.get("REQUIRE_OPA") != "1":
            shipped = Shipped.load(folder)
            for name in shipped.names():
                shipped.policy(name)
            print(f"{len(shipped.names())} policies match their manifest; not rebuilt: no opa here, `make opa` gets it")
            return 0
        version = opa.version()
        if version != OPA_VERSION:
            print(f"opa {version} is not the pinned {OPA_VERSION}", file=sys.stderr)
            return 1
        files = build(folder, opa)
    except KbsError as err:
        print(f"{err} {err.operator_detail or ''}".strip(), file=sys.stderr)
        return 1
    changed = differences(folder, files)
    if not options.check:
        write(folder, files)
    for name in changed:
        print(f"{'differs' if options.check else 'written'}: {name}")
    print(f"{len(files) - 1} policies, {sum(map(len, files.values())) // 1024} KiB, opa {version}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))  # noqa: TID251 - a program of its own
