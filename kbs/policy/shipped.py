"""The policies that come with the package, compiled. They need no `opa`.

`manifest.json` says what each module was compiled from; anything that does not match is refused, so that a text and
what decides in its name cannot drift apart.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kbs.errors import PolicyBroken
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.rego_sources import CAPABILITIES, modules, policies_folder, sha256_hex

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Shipped:
    """The shipped policies of one folder."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, folder: Path | None = None) -> Shipped:
        """Read the manifest and check what all policies share.

        Raises:
            PolicyBroken: no manifest, or a library or capabilities file that is not the one they were compiled with.
        """
        root = folder or policies_folder()
        try:
            manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
            for kind in PolicyKind:
                for name, text in modules(kind, root).items():
                    _same(name, text.encode("utf-8"), manifest["library"][name])
            _same(CAPABILITIES.name, CAPABILITIES.read_bytes(), manifest["capabilities"])
            return cls(root, manifest["policies"])
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise _damaged("the manifest or a file it names is missing") from err

    def names(self) -> list[str]:
        """Such as `evidence/cpu`, `resource/upstream/default`; sorted."""
        return sorted(self.manifest)

    def recognise(self, kind: PolicyKind, text: bytes) -> str | None:
        """Name of the shipped policy of this kind with exactly these bytes, which then need no `opa`."""
        digest = sha256_hex(text)
        for name, entry in self.manifest.items():
            if name.startswith(f"{kind}/") and hmac.compare_digest(entry["source_sha256"], digest):
                return name
        return None

    def policy(self, name: str, *, origin: str | None = None) -> Policy:
        """One policy by name.

        Raises:
            PolicyBroken: no such policy, or one whose text or module is not the one in the manifest.
        """
        try:
            entry = self.manifest[name]
            text = (self.folder / f"{name}.rego").read_bytes()
            wasm = (self.folder / entry["wasm"]).read_bytes()
            _same(name, text, entry["source_sha256"])
            _same(entry["wasm"], wasm, entry["wasm_sha256"])
        except (OSError, KeyError, TypeError) as err:
            raise _damaged(f"the shipped policy {name!r} is missing") from err
        kind = PolicyKind(name.partition("/")[0])
        return Policy(kind, text.decode("utf-8"), sha256_hex(text), wasm, origin or f"shipped:{name}")


def _same(name: str, data: bytes, expected: str) -> None:
    if not hmac.compare_digest(sha256_hex(data), expected):
        raise _damaged(f"{name} is not what the manifest of shipped policies says")


def _damaged(why: str) -> PolicyBroken:
    return PolicyBroken("the shipped policies are damaged", operator_detail=f"{why}; `make policies` rebuilds them")
