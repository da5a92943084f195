"""The probe policies of tests/vectors/policies; run as a program it compiles them anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.opa_command import OpaCommand
from kbs.policy.rego_sources import modules

FOLDER = Path(__file__).parent / "vectors" / "policies"


def probe(kind: PolicyKind) -> Policy:
    """The committed probe of a kind."""
    text = (FOLDER / f"{kind}.rego").read_text(encoding="utf-8")
    wasm = (FOLDER / f"{kind}.wasm").read_bytes()
    return Policy(kind, text, hashlib.sha256(text.encode()).hexdigest(), wasm, "test")


def compiled(kind: PolicyKind, opa: Path) -> bytes:
    """What `opa` makes of the probe's text."""
    return OpaCommand(opa).build(kind, modules(kind), (FOLDER / f"{kind}.rego").read_text(encoding="utf-8"))


if __name__ == "__main__":
    from tests.opa_binary import find_opa

    program = find_opa()
    assert program is not None, "no opa"
    for each in PolicyKind:
        (FOLDER / f"{each}.wasm").write_bytes(compiled(each, program))
