"""Where the shipped policies lie, and the Rego sources that every policy of a kind is compiled with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from kbs.errors import ConfigInvalid
from kbs.policy.engine import PolicyKind

CAPABILITIES: Final = Path(__file__).with_name("capabilities.json")
"""What policies may call: OPA's capabilities file, reduced to what its Wasm runtime and `builtins` offer."""

_MODULES: Final[Mapping[PolicyKind, tuple[str, ...]]] = MappingProxyType(
    {
        PolicyKind.EVIDENCE: (
            "checks",
            "cpu",
            "findings",
            "identity",
            "prelude",
            "profile",
            "sets",
            "workload",
            "wrapper_evidence",
        ),
        PolicyKind.RESOURCE: ("affirming", "findings", "workload", "wrapper_resource"),
    }
)
IMPORTABLE: Final = frozenset({"affirming", "checks", "cpu", "findings", "identity", "profile", "sets", "workload"})
"""Packages below `data.kbs` that a policy may refer to."""


def policies_folder() -> Path:
    """The folder of shipped policies: inside the installed package, or `policies/` of a checkout.

    Raises:
        ConfigInvalid: neither is there.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "shipped", here.parents[2] / "policies"):
        if (folder / "lib").is_dir():
            return folder
    raise ConfigInvalid("the shipped policies are missing from this installation")


def modules(kind: PolicyKind, folder: Path | None = None) -> dict[str, str]:
    """Name, such as `lib/prelude.rego`, and text of the modules compiled beside every policy of a kind."""
    root = folder or policies_folder()
    names = (f"lib/{name}.rego" for name in _MODULES[kind])
    return {name: (root / name).read_text(encoding="utf-8") for name in names}


def sha256_hex(data: bytes) -> str:
    """Digest of a file or text as manifests and decisions write it."""
    return hashlib.sha256(data).hexdigest()
