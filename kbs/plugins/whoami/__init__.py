"""Plugin `whoami`: tells a guest what was made of its evidence, and answers with nothing at all where that is enough.

    whoami, whoami/status, whoami/guest/status/self   the guest's own appraisal, as JSON
    whoami/empty, whoami/guest/empty/self             no octets: whoever gets them has attested, and policy said yes

The forms of three segments are for guests up to v0.20, which ask for no others (kbs-protocol 12.4). Everything in an
answer stands in the guest's own token already: this plugin looks at nothing else, so there is nothing that it could
give away. Policies, reference values and what was expected never were in there; extensions, which a policy may fill
with whatever it likes, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kbs import strict_json
from kbs.attestation.ear import ANNOTATED_EVIDENCE, POLICY_ID, STATUS, VECTOR
from kbs.errors import ConfigInvalid, ResourceNotFound, ServerFault
from kbs.plugins.model import Access, Guard, Guest, PluginAnswer, PluginContext, PluginRequest
from kbs.protocol.tee import Tee
from kbs.secret import Secret

_GUARDS: Final[Mapping[str, Guard]] = {"GET": Guard(Access.TOKEN)}
_STATUS: Final = frozenset({(), ("",), ("status",), ("guest", "status", "self")})
_EMPTY: Final = frozenset({("empty",), ("guest", "empty", "self")})
_TEES: Final = frozenset(tee.value for tee in Tee)
_TIERS: Final = ("affirming", "none", "warning", "contraindicated")  # best first


class WhoamiPlugin:
    """Answers from the token alone; keeps nothing and reads nothing."""

    blocks = False

    def guards(self) -> Mapping[str, Guard]:
        """GET for guests. Whether one gets an answer the resource policy says, as for every other resource."""
        return _GUARDS

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one request that policy let through.

        Raises:
            ResourceNotFound: another path.
        """
        if request.guest is None:
            raise ServerFault("internal error", operator_detail="whoami without a guest")
        if request.segments in _EMPTY:
            return PluginAnswer(Secret(b""))
        if request.segments not in _STATUS:
            raise ResourceNotFound("whoami has the resources `status` and `empty`")
        return PluginAnswer(Secret(strict_json.encode(appraisal_of(request.guest))))


def appraisal_of(guest: Guest) -> dict[str, Any]:
    """What a guest may know of its appraisal.

    Returns:
        `attestation` (decision id, which administrators give to `kbs explain`; null for some foreign issuers),
        `issuer`, `expires` (ISO 8601), `status` (the worst of all), and `submods`: by name `status`, `trust_vector`,
        `tee`, `policy` (its id) and `claims` (the evidence as its policy saw it, and as the token has it).
    """
    found = guest.claims.get("submods")
    submods = {
        name: _submodule(submod)
        for name, submod in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(submod, Mapping)
    }
    statuses = [submod["status"] for submod in submods.values()]
    known = all(status in _TIERS for status in statuses)
    return {
        "attestation": guest.attestation,
        "issuer": guest.claims.get("iss"),
        "expires": guest.expires.isoformat(),
        "status": max(statuses, key=_TIERS.index) if statuses and known else None,
        "submods": submods,
    }


def _submodule(submod: Mapping[str, Any]) -> dict[str, Any]:
    claims = submod.get(ANNOTATED_EVIDENCE)
    return {
        "status": submod.get(STATUS),
        "trust_vector": submod.get(VECTOR),
        "tee": next((name for name in claims if name in _TEES), None) if isinstance(claims, Mapping) else None,
        "policy": submod.get(POLICY_ID),
        "claims": claims,
    }


def build(context: PluginContext) -> WhoamiPlugin:
    """Entry point `kbs.plugins: whoami`. It has no options.

    Raises:
        ConfigInvalid: some are given.
    """
    if context.options:
        raise ConfigInvalid("settings: plugins.options.whoami: the plugin has no options")
    return WhoamiPlugin()
