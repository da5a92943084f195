"""What policy said → trust tiers and the status of an appraisal (AR4SI).

Source: attestation-service 2.4; draft-ietf-rats-ar4si.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kbs.attestation.model import TRUST_CLAIMS, Tier
from kbs.errors import PolicyBroken

_WORST_FIRST: Final = (Tier.CONTRAINDICATED, Tier.WARNING, Tier.AFFIRMING)


def _tier(value: int) -> Tier:
    if -1 <= value <= 1:
        return Tier.NONE
    if -32 <= value <= 31:
        return Tier.AFFIRMING
    if -96 <= value <= 95:
        return Tier.WARNING
    return Tier.CONTRAINDICATED


_TIERS: Final = {value: _tier(value) for value in range(-128, 128)}


def tier(value: int) -> Tier:
    """The tier of one trust claim, an integer in -128..127.

    Raises:
        PolicyBroken: another type (booleans too) or out of range. The reference drops high bits instead, which makes
            258 affirming.
    """
    found = _TIERS.get(value) if type(value) is int else None
    if found is None:
        raise PolicyBroken("a trust claim is not an integer in -128..127")
    return found


def trust_vector(trust_claims: Mapping[str, int]) -> dict[str, int]:
    """Check what a policy asserted and put it into AR4SI order.

    Raises:
        PolicyBroken: nothing asserted, a name that is not one of the eight, or a value `tier` refuses.
    """
    if not trust_claims:
        raise PolicyBroken("the policy asserts no trust claim")
    vector: dict[str, int] = {}
    for name in TRUST_CLAIMS:
        if name in trust_claims:
            value = vector[name] = trust_claims[name]
            tier(value)
    if len(vector) != len(trust_claims):
        unknown = sorted(str(name) for name in trust_claims if name not in TRUST_CLAIMS)
        raise PolicyBroken(f"the policy asserts unknown trust claims: {', '.join(unknown)}")
    return vector


def status(vector: Mapping[str, int]) -> Tier:
    """The worst tier among the claims that are set; `none` is the mildest (attestation-service 2.4).

    Raises:
        PolicyBroken: a value that `tier` refuses.
    """
    found = set(map(tier, vector.values()))
    return next((worst for worst in _WORST_FIRST if worst in found), Tier.NONE)
