"""Which function looks at which kind, and which objects must not go before the broker has heard of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kbs.k8s.controller import keybrokers, policies, profiles, resources, values
from kbs.k8s.controller.cache import AnyResource
from kbs.k8s.controller.outcome import Outcome, Removal, Surroundings
from kbs.k8s.controller.queue import Key
from kbs.k8s.model import KINDS, DeletionPolicy, Kind

Reconcile = Callable[[Key, Any, Surroundings], Outcome | None]
Remove = Callable[[Key, Any, Surroundings], Removal]

BY_NAME: Final[Mapping[str, Kind[Any, Any]]] = {kind.name: kind for kind in KINDS}

RECONCILE: Final[Mapping[str, Reconcile]] = {
    "KeyBroker": keybrokers.reconcile,
    "BrokerResource": resources.reconcile,
    "BrokerPolicy": policies.reconcile,
    "ReferenceValueSet": values.reconcile,
    "WorkloadProfile": profiles.reconcile,
}

REMOVE: Final[Mapping[str, Remove]] = {
    "KeyBroker": keybrokers.remove,
    "BrokerResource": resources.remove,
    "BrokerPolicy": policies.remove,
    "ReferenceValueSet": values.remove,
    "WorkloadProfile": profiles.remove,
}


def is_held(resource: AnyResource) -> bool:
    """Whether the object gets our finalizer."""
    spec = resource.spec
    if resource.kind == "WorkloadProfile":
        return spec.rendered is None and spec.broker_ref is not None
    policy = getattr(spec, "deletion_policy", DeletionPolicy.DELETE)
    return policy is DeletionPolicy.DELETE
