"""The vocabulary of attestation, least trusted first.

A new type for every level of trust: `Evidence` is what a stranger says, `VerifiedClaims` what a verifier vouches for,
`AttestationResult` what policy made of it. Only the function that checked a thing makes the checked type.

What is made for every handshake is a frozen `msgspec.Struct`, which takes a tenth of the time of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from kbs.protocol.tee import Tee

Json = Any
"""A decoded JSON value from the strict decoder: dict, list, str, int, float, bool or None."""


class Evidence(msgspec.Struct, frozen=True):
    """What an Attester says about itself. Nothing in it has been checked.

    `body` is the JSON value as the guest sent it, already through the strict decoder; `appraise` may also pass raw
    report bytes, which a verifier that knows a raw form accepts as `bytes`.
    """

    tee: Tee
    body: Json


class Binding(msgspec.Struct, frozen=True):
    """What evidence must be bound to.

    report_data: the digest over the runtime data, before it is fitted to the TEE's field; None only for `appraise`
        without a challenge: the verifier then compares nothing and emits the claim `binding: not_checked`.
    init_data: digest of the init-data document, or None when the guest sent none.
    kept: for a `ChallengingVerifier`, the `VerifierChallenge.kept` of this very handshake, which nobody but this broker
        could have made, and which is given back for one answer only; None: this handshake holds no such challenge.
    """

    report_data: bytes | None
    init_data: bytes | None = None
    kept: bytes | None = None

    def __repr__(self) -> str:
        """Without what is kept."""
        return f"Binding(report_data={self.report_data!r}, init_data={self.init_data!r})"


@dataclass(frozen=True, slots=True)
class EndorsementNeed:
    """One piece of collateral that a verifier asks for.

    name: path-like, built by the verifier from checked parts only, e.g. `amd/vcek/Milan/<128 hex>/04-00-18-db`. It is
        the key in `Endorsements`, the cache key, and what an endorser makes an address of.
    required: verification without it is refused with 503; otherwise its absence becomes a claim.
    """

    name: str
    required: bool


@dataclass(frozen=True, slots=True)
class Endorsements:
    """Collateral as fetched or given, by `EndorsementNeed.name`. Unverified: the verifier checks every item."""

    items: Mapping[str, bytes] = field(default_factory=dict)


class VerifiedClaims(msgspec.Struct, frozen=True):
    """Claims under a valid chain, fresh, and bound to this handshake. Only a Verifier makes one.

    claims: JSON object. Members `report_data` and `init_data` (strings) are hoisted by the pipeline
        (attestation-service 1.7). Every claim set carries `revocation` (`checked`, `not_checked`, `not_applicable`)
        and, when the binding held no report data, `binding: "not_checked"`; else `binding: "checked"`.
    device_class: `cpu`, `gpu`, `switch`, `ppcie`, `dcu`, `nvidia-dpu`; names the submodule and the policy.
    """

    tee: Tee
    device_class: str
    claims: Mapping[str, Json]


class Verifier(Protocol):
    """All that one TEE knows: its layout, its chain, its quirks.

    `needs` and `verify` are pure. They raise `EvidenceRejected` (a subclass that names the cause) and nothing else;
    anything else that escapes is a bug here, and the caller records it and refuses.
    """

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """Name the collateral to fetch. Parses no more than it must."""

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain, revocation and binding as of `at` (aware, UTC)."""

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Turn collateral given by hand (the `endorsements` object of a case file, base64 or hex as documented for
        this TEE) into `Endorsements` for this evidence."""


@dataclass(frozen=True, slots=True)
class VerifierChallenge:
    """What a TEE wants to be asked, for one handshake.

    nonce: text; takes the place of the random nonce in the Challenge message.
    kept: secret, at most `MAX_KEPT` octets; comes back as `Binding.kept` with the answer. Until then it travels sealed
        in the guest's cookie, so whatever of the pool of workers and replicas is asked next can open it.
    """

    nonce: str
    kept: bytes = field(repr=False)


MAX_KEPT = 4096
"""Octets of `VerifierChallenge.kept`: a cookie must stay a cookie."""


@runtime_checkable
class ChallengingVerifier(Verifier, Protocol):
    """A verifier whose TEE must be asked in its own words. Optional: the others get a random nonce."""

    def challenge(self, random: Callable[[int], bytes], at: datetime) -> VerifierChallenge:
        """Ask anew, for one handshake.

        Args:
            random: gives that many octets out of a cryptographic source.
            at: now, aware, UTC.

        Raises:
            EndorsementsUnavailable: what the question needs is not to be had, or not valid, at `at`. Nothing else.
        """


@dataclass(frozen=True, slots=True)
class VerifierOptions:
    """What a verifier factory is given: `build(VerifierOptions(...)) -> Verifier`. No network at build time.

    options: this TEE's settings by name, e.g. `{"snp_vlek_csp_ids": [...]}`; unknown names are refused with
        `ConfigInvalid`.
    anchors: trust roots and enrolled keys *instead of* the built-in ones (case files, test roots); None: built-in.
    directory: the data directory of the broker that the verifier is for, which file names in `options` are relative to;
        None: for judging evidence by hand.
    """

    options: Mapping[str, Json] = field(default_factory=dict)
    anchors: Mapping[str, Json] | None = None
    directory: Path | None = None


TRUST_CLAIMS = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""AR4SI trustworthiness claims in the order of their CBOR keys (draft-ietf-rats-ar4si)."""


class Tier(StrEnum):
    """AR4SI trust tiers, best to worst as EAR writes them; NONE asserts nothing."""

    NONE = "none"
    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


class Appraisal(msgspec.Struct, frozen=True):
    """What policy made of one claim set: one member of `submods`."""

    submod: str  # device class and counter: cpu0, gpu0, gpu1
    tee: Tee
    status: Tier
    vector: Mapping[str, int]
    policy_id: str  # as the token names it, without the class: "default"
    policy_digest: str  # SHA-256 of the policy text, hex
    policy_name: str  # id with class and origin, for people: "default_cpu (shipped:evidence/cpu.rego)"
    annotated_evidence: Mapping[str, Json]
    annotated_json: bytes  # the same, as `kbs.strict_json.encode` wrote it
    extensions: Mapping[str, Json]


class AttestationResult(msgspec.Struct, frozen=True):
    """The Attestation Result before it is signed. `kbs.tokens` turns it into an EAR JWT."""

    appraisals: tuple[Appraisal, ...]
    references_version: str  # version of the reference-value snapshot it was made with
