"""Publishers: who may state reference values, with which keys, for which names, for how long and with whose consent.

They are read from one TOML file (setting `references.publishers` of the broker, `publishers.toml` in the data directory
of `rvps serve`):

    [publishers.acme]                    # name: a-z, 0-9, `.`, `_`, `-`
    types = ["dsse"]                     # message types it may send
    namespaces = ["snp_", "acme/"]       # its names begin with one of these
    keys = ["acme-2026.pem"]             # files of PEM public keys, relative to this file; or the PEM text itself
    roots = ["acme-root.pem"]            # or certificates that its signing certificates chain up to
    tees = ["snp", "az-snp-vtpm"]        # default: any
    max_life_days = 90                   # default 366; statements that live longer are refused
    approvals = 2                        # default 0: valid on arrival
    approvers = ["alice", "bob", "carol"]
    self_approval = false                # default; true: `acme` may be one of its own approvers
    keeps = 1                            # newest statements of a series that are valid together
    merge = "replace"                    # or "append": lists of several series under one name are united

    [publishers.acme.sigstore]           # or keyless signatures
    trusted_root = "trusted_root.json"
    issuer = "https://token.actions.githubusercontent.com"
    identity = "https://github.com/acme/guest/\\.github/workflows/release\\.yml@refs/tags/v.*"
    source_repository = "https://github.com/acme/guest"
    workflow_ref = "refs/tags/v.*"
    builder_ids = ["https://github.com/acme/guest/.github/workflows/release.yml@refs/tags/v1"]
    build_types = ["https://actions.github.io/buildtypes/workflow/v1"]
    source_digest = "1d39a0bacdca1d883195c8cb7866a19c118dbd7c"
    build_config = "https://github.com/acme/guest/\\.github/workflows/release\\.yml@refs/tags/v.*"
    build_trigger = "release"
    runner_environment = "github-hosted"

    [publishers.acme.provenance]         # needed for SLSA provenance over a file of values
    builder = "https://github.com/acme/guest/\\.github/workflows/release\\.yml@refs/tags/v.*"
    build_type = "https://actions.github.io/buildtypes/workflow/v1"
    repository = "https://github.com/acme/guest"
    ref = "refs/tags/v.*"
    path = ".github/workflows/release.yml"
    series = "guest"
    serial_from = "version"              # or "run", "time"
    tee = "tdx"

    [publishers.acme.provenance.rename]  # published name, with or without its `:tag`, to the policies' name
    "rvps:///github.com/acme/tdx/mr_td" = "mr_td"

    [approvers.alice]                    # may approve and revoke, states nothing
    keys = ["alice.pem"]

`types`, `namespaces` and at least one of `keys`, `roots`, `sigstore` are required. A key or root belongs to one entry.

Source: rvps 13.2, 13.7; threat-model P-RULE-7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate

from rvps.errors import SettingsUnacceptable
from rvps.strict_json import encode

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey
"""ECDSA on P-256 or P-384, Ed25519, or RSA from 3072 bits on."""

DEFAULT_LIFE: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class SigstoreTrust:
    """Whose keyless signatures count.

    trusted_root: a Sigstore trusted root as JSON; the only source of Fulcio, log and timestamp keys.
    issuer: OIDC issuer in the certificate, exactly.
    identity, workflow_ref: google-re2 patterns that match the whole identity (SAN) and the whole source ref.
    source_repository: its URI in the certificate, exactly. builder_ids, build_types: exact members of SLSA provenance;
        empty: not looked at.
    source_digest, build_trigger, runner_environment: what the certificate says, exactly. build_config: google-re2
        pattern that matches the whole URI of the top-level workflow. None: not looked at.
    """

    trusted_root: bytes = field(repr=False)
    issuer: str
    identity: str
    source_repository: str | None = None
    workflow_ref: str | None = None
    builder_ids: frozenset[str] = frozenset()
    build_types: frozenset[str] = frozenset()
    source_digest: str | None = None
    build_config: str | None = None
    build_trigger: str | None = None
    runner_environment: str | None = None


@dataclass(frozen=True, slots=True)
class ProvenanceRules:
    """Which SLSA provenance turns a file of values into a statement of this publisher.

    builder, ref: google-re2 patterns that match the whole builder id and the whole `workflow.ref`.
    build_type, repository, path: exact; `repository` and `path` are the other members of the external parameter
        `workflow`, and there may be no further parameter.
    series: of files that do not name one. tee: what files that do not name one are about.
    serial_from: where the rising number comes from: `version` (the tag in `ref`), `run` (the run's id and attempt) or
        `time` (seconds since 1970 of the signature, by a verified clock).
    rename: name in a flat file of values, with or without its `:tag`, to the name that policies ask for.

    Source: rvps 12.1, 12.3.
    """

    builder: str
    build_type: str
    repository: str
    ref: str
    path: str
    series: str
    serial_from: Literal["version", "run", "time"] = "version"
    tee: str | None = None
    rename: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trust:
    """What verifies the signatures of one publisher. At least one member is not empty."""

    keys: tuple[PublicKey, ...] = ()
    roots: tuple[Certificate, ...] = ()
    sigstore: SigstoreTrust | None = None


@dataclass(frozen=True, slots=True)
class Publisher:
    """A named signer and what it may state. One that only approves has no namespace.

    types: message types it may send. namespaces: prefixes of names. tees: None: any.
    approvals: how many of `approvers` (names) must consent before its statements are valid.
    self_approval: whether its own signature counts where `approvers` lists it.
    """

    name: str
    types: frozenset[str]
    namespaces: tuple[str, ...]
    trust: Trust = field(repr=False)
    tees: frozenset[str] | None = None
    max_life: timedelta = DEFAULT_LIFE
    approvals: int = 0
    approvers: frozenset[str] = frozenset()
    self_approval: bool = False
    keeps: int = 1
    merge: Literal["replace", "append"] = "replace"
    provenance: ProvenanceRules | None = None

    def may_state(self, name: str) -> bool:
        """Whether `name` begins with one of its namespaces."""
        return name.startswith(self.namespaces)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key with the one publisher it belongs to. id: see `key_id`."""

    id: str
    key: PublicKey
    publisher: Publisher


@dataclass(frozen=True, slots=True)
class Publishers:
    """All publishers of one file, made by `gather`. digest: SHA-256 hex over all they are; a decision can name it."""

    by_name: Mapping[str, Publisher] = field(default_factory=dict)
    digest: str = ""
    keys: Mapping[str, KnownKey] = field(default_factory=dict, repr=False)
    """Key id → key and publisher."""

    def __iter__(self) -> Iterator[Publisher]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def with_type(self, kind: str) -> tuple[Publisher, ...]:
        """Those that may send messages of this type."""
        return tuple(publisher for publisher in self if kind in publisher.types)


def key_id(key: PublicKey) -> str:
    """`sha256:<lower-case hex>` of the DER SubjectPublicKeyInfo."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def load(path: Path) -> Publishers:
    """Read the file, and the keys and certificates that it names.

    Raises:
        SettingsUnacceptable: unreadable, unknown or missing members, members of another type, a weak or private key,
            and what `gather` refuses. The text names file, publisher and member.
    """
    from rvps.publishers.file import read  # its parsers are for this one call

    return gather(read(path))


def gather(publishers: Iterable[Publisher]) -> Publishers:
    """Publishers side by side, checked against each other.

    Raises:
        SettingsUnacceptable: two of one name; a key or root certificate of two publishers (whose signature would it
            be?); approvers that do not exist, or fewer of them than approvals.
    """
    by_name: dict[str, Publisher] = {}
    keys: dict[str, KnownKey] = {}
    roots: dict[bytes, str] = {}
    for publisher in publishers:
        if by_name.setdefault(publisher.name, publisher) is not publisher:
            raise SettingsUnacceptable(f"publisher {publisher.name!r} is there twice")
        for key in publisher.trust.keys:
            known = keys.setdefault(key_id(key), KnownKey(key_id(key), key, publisher))
            if known.publisher is not publisher:
                raise SettingsUnacceptable(f"one key belongs to both {known.publisher.name!r} and {publisher.name!r}")
        for root in publisher.trust.roots:
            owner = roots.setdefault(root.fingerprint(SHA256()), publisher.name)
            if owner != publisher.name:
                raise SettingsUnacceptable(f"one root certificate belongs to both {owner!r} and {publisher.name!r}")
    for publisher in by_name.values():
        _check_approvers(publisher, by_name)
    digest = hashlib.sha256(encode([_described(publisher) for _, publisher in sorted(by_name.items())])).hexdigest()
    return Publishers(MappingProxyType(by_name), digest, MappingProxyType(keys))


NOBODY: Final = Publishers()
"""No publishers: nothing signed is accepted."""


def _check_approvers(publisher: Publisher, by_name: Mapping[str, Publisher]) -> None:
    for approver in sorted(publisher.approvers):
        if approver not in by_name:
            raise SettingsUnacceptable(f"publisher {publisher.name!r}: there is no approver {approver!r}")
    able = publisher.approvers if publisher.self_approval else publisher.approvers - {publisher.name}
    if publisher.approvals > len(able):
        raise SettingsUnacceptable(
            f"publisher {publisher.name!r}: {len(able)} approvers never give {publisher.approvals} approvals"
        )


def _described(publisher: Publisher) -> dict[str, Any]:
    sigstore, rules = publisher.trust.sigstore, publisher.provenance
    return {
        "name": publisher.name,
        "types": sorted(publisher.types),
        "namespaces": sorted(publisher.namespaces),
        "keys": sorted(key_id(key) for key in publisher.trust.keys),
        "roots": sorted(root.fingerprint(SHA256()).hex() for root in publisher.trust.roots),
        "sigstore": sigstore
        and {
            "trusted_root": hashlib.sha256(sigstore.trusted_root).hexdigest(),
            "issuer": sigstore.issuer,
            "identity": sigstore.identity,
            "source_repository": sigstore.source_repository,
            "workflow_ref": sigstore.workflow_ref,
            "builder_ids": sorted(sigstore.builder_ids),
            "build_types": sorted(sigstore.build_types),
            "source_digest": sigstore.source_digest,
            "build_config": sigstore.build_config,
            "build_trigger": sigstore.build_trigger,
            "runner_environment": sigstore.runner_environment,
        },
        "provenance": rules and {item.name: getattr(rules, item.name) for item in fields(rules)},
        "tees": None if publisher.tees is None else sorted(publisher.tees),
        "max_life": int(publisher.max_life.total_seconds()),
        "approvals": publisher.approvals,
        "approvers": sorted(publisher.approvers),
        "self_approval": publisher.self_approval,
        "keeps": publisher.keeps,
        "merge": publisher.merge,
    }
