"""The five kinds of `kbs.confidential.dev/v1alpha1` as typed values.

`k8s/crds/*.yaml` says what the API server takes; these types have the same members, in snake case
(`kbs.k8s.documents` reads and writes them). Nothing here holds bytes of a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

GROUP: Final = "kbs.confidential.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FINALIZER: Final = f"{GROUP}/broker"
"""Held by objects whose deletion the broker has to hear of."""

PROFILE_LABEL: Final = f"{GROUP}/profile"
WIRED_ANNOTATION: Final = f"{GROUP}/wired"

Json = Any
"""What JSON holds."""


# --- what several kinds have ------------------------------------------------------------------------------------------


class DeletionPolicy(StrEnum):
    """What becomes of the broker's copy when the object goes."""

    DELETE = "Delete"
    RETAIN = "Retain"


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A key of a ConfigMap or Secret in the namespace of the object. key: None for all keys, where that is allowed."""

    name: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class CaBundle:
    """Where certificates in PEM stand: one of the two."""

    config_map_ref: KeyRef | None = None
    secret_ref: KeyRef | None = None


@dataclass(frozen=True, slots=True)
class BrokerRef:
    """A KeyBroker. namespace: None for the namespace of the object."""

    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """`metav1.Condition`. status: `True`, `False` or `Unknown`. last_transition_time: of `status`, RFC 3339."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int | None = None


@dataclass(frozen=True, slots=True)
class Meta:
    """Of `metadata`, what anybody here looks at. deleting: `deletionTimestamp` is set."""

    namespace: str
    name: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    created: str = ""
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


# --- KeyBroker --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllowedNamespace:
    """A namespace that may name the broker. repositories: first segments of the paths that it may write."""

    name: str
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyBrokerSpec:
    """A broker that the controller administers. url: of the admin listener."""

    url: str
    admin_token_secret_ref: KeyRef
    ca_bundle: CaBundle | None = None
    insecure_http: bool = False
    allowed_namespaces: tuple[AllowedNamespace, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyBrokerStatus:
    """Conditions: Reachable, Secure, Ready."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    version: str | None = None
    tees: tuple[str, ...] = ()
    policy_set: str | None = None
    insecure: tuple[str, ...] = ()


# --- BrokerResource ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerResourceSpec:
    """path: repository/type/tag with `secret_ref.key`, else repository/type."""

    broker_ref: BrokerRef
    path: str
    secret_ref: KeyRef
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE


@dataclass(frozen=True, slots=True)
class WrittenResource:
    """A resource that the broker holds because of an object, and the version that was written."""

    path: str
    version: int


@dataclass(frozen=True, slots=True)
class SecretState:
    """Which state of a Secret was written; says nothing about its bytes."""

    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class BrokerResourceStatus:
    """Conditions: Conflict, Ready. address: of the broker that it was written to."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    resources: tuple[WrittenResource, ...] = ()
    secret: SecretState | None = None
    address: str | None = None


# --- BrokerPolicy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerPolicySpec:
    """kind: `evidence` or `resource`. rego, or config_map_ref."""

    broker_ref: BrokerRef
    kind: str
    policy_id: str
    rego: str | None = field(default=None, repr=False)
    config_map_ref: KeyRef | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN


@dataclass(frozen=True, slots=True)
class BrokerPolicyStatus:
    """Conditions: Compiled, Conflict, Ready. digest: SHA-256 of the active text; refused: of the one refused last."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    version: int | None = None
    digest: str | None = None
    refused: str | None = None


# --- ReferenceValueSet ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferenceValueSetSpec:
    """Signed messages by reference, or, with `unsigned`, values."""

    broker_ref: BrokerRef
    statement_config_map_ref: KeyRef | None = None
    statement_secret_ref: KeyRef | None = None
    unsigned: bool = False
    values: Mapping[str, Json] | None = None
    expires: str | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN


@dataclass(frozen=True, slots=True)
class ReferenceValueSetStatus:
    """Conditions: Accepted, Expiring (for `values`), Ready. names: stated from `values`. address: of the broker."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    digest: str | None = None
    refused: str | None = None
    messages: int | None = None
    names: tuple[str, ...] = ()
    accepted_at: str | None = None
    address: str | None = None


# --- WorkloadProfile --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InitDataSource:
    """What `kbs.initdata.render` takes: `yaml` with `files`, or a ConfigMap whose other keys are the files."""

    yaml: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    config_map_ref: KeyRef | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the trusted cluster rendered and registered. generation: of the profile there."""

    annotation: str = field(repr=False)
    digest: str
    algorithm: str
    generation: int


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A Secret of the workload's namespace with sealed values: one variable, or files below a path.

    key: of the Secret, None for the variable's name. containers: names; none for all.
    """

    secret_name: str
    key: str | None = None
    env: str | None = None
    mount_path: str | None = None
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Images:
    """pull: `guest` or `host`. create_container_timeout: seconds."""

    require_digest: bool = True
    encrypted: bool = False
    pull: str = "guest"
    pull_secrets: tuple[str, ...] = ()
    create_container_timeout: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadProfileSpec:
    """In the trusted cluster `init_data`; in copies for workload clusters `rendered`. keep_old: such as `24h`."""

    runtime_class_name: str
    broker_ref: BrokerRef | None = None
    kbs_url: str | None = None
    ca_bundle: CaBundle | None = None
    init_data: InitDataSource | None = None
    rendered: Rendered | None = None
    keep_old: str = "24h"
    sealed_secrets: tuple[SealedSecret, ...] = ()
    images: Images = field(default_factory=Images)
    allowed_namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredDigest:
    """An entry in the broker's register. until: when it goes, RFC 3339; None while it is in use."""

    name: str
    digest: str
    until: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadProfileStatus:
    """Conditions: Rendered, Registered, Ready."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    init_data_annotation: str | None = field(default=None, repr=False)
    init_data_digest: str | None = None
    algorithm: str | None = None
    kbs_url: str | None = None
    registered: tuple[RegisteredDigest, ...] = ()
    broker: str | None = None


# --- objects ----------------------------------------------------------------------------------------------------------

Spec = TypeVar("Spec", covariant=True)
Status = TypeVar("Status", covariant=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Spec, Status]):
    """One kind: its names and types."""

    name: str
    plural: str
    spec: type[Spec]
    status: type[Status]


@dataclass(frozen=True, slots=True)
class Resource(Generic[Spec, Status]):
    """One object."""

    kind: str
    meta: Meta
    spec: Spec
    status: Status


KEY_BROKER: Final = Kind("KeyBroker", "keybrokers", KeyBrokerSpec, KeyBrokerStatus)
BROKER_RESOURCE: Final = Kind("BrokerResource", "brokerresources", BrokerResourceSpec, BrokerResourceStatus)
BROKER_POLICY: Final = Kind("BrokerPolicy", "brokerpolicies", BrokerPolicySpec, BrokerPolicyStatus)
REFERENCE_VALUE_SET: Final = Kind(
    "ReferenceValueSet", "referencevaluesets", ReferenceValueSetSpec, ReferenceValueSetStatus
)
WORKLOAD_PROFILE: Final = Kind("WorkloadProfile", "workloadprofiles", WorkloadProfileSpec, WorkloadProfileStatus)
KINDS: Final[tuple[Kind[Any, Any], ...]] = (
    KEY_BROKER,
    BROKER_RESOURCE,
    BROKER_POLICY,
    REFERENCE_VALUE_SET,
    WORKLOAD_PROFILE,
)

KeyBroker = Resource[KeyBrokerSpec, KeyBrokerStatus]
BrokerResource = Resource[BrokerResourceSpec, BrokerResourceStatus]
BrokerPolicy = Resource[BrokerPolicySpec, BrokerPolicyStatus]
ReferenceValueSet = Resource[ReferenceValueSetSpec, ReferenceValueSetStatus]
WorkloadProfile = Resource[WorkloadProfileSpec, WorkloadProfileStatus]


def rendered(profile: WorkloadProfile) -> Rendered | None:
    """What Pods of a profile get: from `spec.rendered` of a copy, else from the status, if it is of this generation
    and the digest is registered. None: not ready, and no Pod may be wired with it.
    """
    if profile.spec.rendered is not None:
        return profile.spec.rendered
    status = profile.status
    if status.observed_generation != profile.meta.generation or not is_true(status.conditions, "Ready"):
        return None
    if status.init_data_annotation is None or status.init_data_digest is None or status.algorithm is None:
        return None
    return Rendered(status.init_data_annotation, status.init_data_digest, status.algorithm, profile.meta.generation)


def is_true(conditions: tuple[Condition, ...], name: str) -> bool:
    """Whether a condition stands and is `True`."""
    return any(each.type == name and each.status == "True" for each in conditions)
