"""Policy texts that tools of the field send as they are, recognised by digest, so that they work without `opa`.

What becomes active is our own text of the same meaning (KBS protocol 7.3, attestation-service 2.5 and 2.6). Sizes and
digests are those of upstream's files of August 2026; nothing of the texts is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kbs.policy.engine import PolicyKind
from kbs.policy.rego_sources import sha256_hex


@dataclass(frozen=True, slots=True)
class WellKnown:
    """One such text. `shipped`: name of ours; `warning`: what an operator should hear when it is set, or empty."""

    name: str
    kind: PolicyKind
    size: int
    shipped: str
    warning: str = ""


_NOT_SAMPLE: Final = (
    "this policy releases to every token whose CPU evidence is not of the sample TEE, without asking whether it was "
    "affirmed; here it asks for a cpu0 submodule to be present"
)
_E: Final = PolicyKind.EVIDENCE
_R: Final = PolicyKind.RESOURCE

BY_DIGEST: Final[Mapping[str, WellKnown]] = MappingProxyType(
    {
        "65e44d6ed8635ff231bae649fb747c1d310c32969d52342e612d6a3997a208b1": WellKnown(
            "allow-all", _R, 97, "resource/upstream/allow-all", "this policy releases every resource to every token"
        ),
        "1dcb1fc7f5e461db45d9bf4386eb3c9ab6002392317b73dd74e8cdd2948ab124": WellKnown(
            "deny-all", _R, 2000, "resource/upstream/deny-all"
        ),
        "f445611d69a5d7b501f1c59139aa7608ffa779ab51db8a7a4b750b6fa6c603c1": WellKnown(
            "affirming", _R, 224, "resource/upstream/affirming"
        ),
        "499ca0280c1ed8f13aa335c3cddab4fbf6952eefa383a49cf77968a6b0fe6c60": WellKnown(
            "not-sample", _R, 2133, "resource/upstream/default", _NOT_SAMPLE
        ),
        "1435d1f79d18e4e6d3defac9e246b35ba124b88bef4dc9cd07a07051a09bbb66": WellKnown(
            "cpu", _E, 12359, "evidence/upstream/cpu"
        ),
        "a6a9ff392be66d75f8f80bd094af4872deba7440efaad1aff141980da81dbe9f": WellKnown(
            "gpu", _E, 2259, "evidence/upstream/gpu"
        ),
        "26db1e66d6add2dbc19e98469c3746d78f5b7407c640aff4ee3d9ec0d7103e01": WellKnown(
            "ppcie", _E, 769, "evidence/upstream/ppcie"
        ),
        "0716f9678b10cbfb9ae4ffe658fecf6b57aa4b6edcef217ff12f7d6a396d1ea6": WellKnown(
            "switch", _E, 1919, "evidence/upstream/switch"
        ),
    }
)


def recognise(kind: PolicyKind, text: bytes) -> WellKnown | None:
    """The well-known text of this kind with exactly these bytes, if there is one."""
    found = BY_DIGEST.get(sha256_hex(text))
    return found if found is not None and found.kind is kind and found.size == len(text) else None
