"""A WorkloadProfile as Pods need it: checked once, used for many.

What is rendered stands in `status`, written by the controller where it runs, or in `spec.rendered` of a copy. Neither
is trusted: it is measured in the guest. But a text that does not have its own digest would start guests that are
denied, so that is looked at here, once for each profile.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kbs.errors import MalformedMessage
from kbs.initdata import annotation, document
from kbs.k8s.model import Condition, Images, Rendered, SealedSecret, WorkloadProfile
from kbs.k8s.wiring.findings import Finding, shown

EVERY_NAMESPACE: Final = "*"
NO_BROKER: Final = "NoBroker"
"""Why `Registered` is unknown where `spec.brokerRef` is not set: its owner registers the init data himself."""


@dataclass(frozen=True, slots=True)
class Profile:
    """rendered: generation, annotation, digest. problem: why no Pod may use it now; None where all is well."""

    namespace: str
    name: str
    runtime_class: str
    rendered: Rendered
    sealed: tuple[SealedSecret, ...] = ()
    images: Images = field(default_factory=Images)
    allowed_namespaces: frozenset[str] = frozenset()
    problem: Finding | None = None

    @property
    def mark(self) -> str:
        """The value of the annotation `wired`."""
        return f"{self.name}/{self.rendered.generation}"

    def allows(self, namespace: str) -> bool:
        """Whether Pods of a namespace may use it; those of its own always do."""
        return namespace == self.namespace or bool(self.allowed_namespaces & {namespace, EVERY_NAMESPACE})


def profile_of(resource: WorkloadProfile) -> Profile:
    """What Pods get of a profile, and what is wrong with it."""
    meta, spec = resource.meta, resource.spec
    rendered, problem = _rendered(resource)
    return Profile(
        namespace=meta.namespace,
        name=meta.name,
        runtime_class=spec.runtime_class_name,
        rendered=rendered,
        sealed=spec.sealed_secrets,
        images=spec.images,
        allowed_namespaces=frozenset(spec.allowed_namespaces),
        problem=problem or _broken(rendered, f"WorkloadProfile {meta.name}"),
    )


def choose(named: Iterable[Profile], namespace: str, name: str) -> Profile | Finding:
    """The profile that the label of a Pod means: that of its own namespace, else the only one that lets it in.

    Args:
        named: all profiles of this name, of any namespace.
    """
    found = list(named)
    where = "metadata.labels"
    for each in found:
        if each.namespace == namespace:
            return each.problem or each
    allowed = [each for each in found if each.allows(namespace)]
    if len(allowed) > 1:
        others = ", ".join(sorted(each.namespace for each in allowed))
        return Finding("profile-ambiguous", where, f"profiles {shown(name)} of the namespaces {shown(others)} would do")
    if allowed:
        return allowed[0].problem or allowed[0]
    if found:
        text = f"the profile {shown(name)} does not allow the namespace {shown(namespace)}"
        return Finding("namespace-not-allowed", where, text)
    return Finding("profile-unknown", where, f"there is no WorkloadProfile {shown(name)} for {shown(namespace)}")


def _rendered(resource: WorkloadProfile) -> tuple[Rendered, Finding | None]:
    """What was rendered last, and why it must not be used."""
    spec, status, where = resource.spec, resource.status, f"WorkloadProfile {resource.meta.name}"
    if spec.rendered is not None:
        return spec.rendered, None
    rendered = Rendered(
        annotation=status.init_data_annotation or "",
        digest=status.init_data_digest or "",
        algorithm=status.algorithm or "",
        generation=resource.meta.generation,
    )
    for kind, name in (("Registered", "profile-not-registered"), ("Ready", "profile-not-ready")):
        condition = _condition(status.conditions, kind)
        if condition is None:
            return rendered, Finding("profile-not-ready", where, f"condition {kind} is not there yet")
        own = spec.broker_ref is None and (kind, condition.reason) == ("Registered", NO_BROKER)
        if condition.status != "True" and not own:
            text = f"condition {kind} is {condition.status}, {condition.reason}: {condition.message}"
            return rendered, Finding(name, where, shown(text))
    if status.observed_generation != resource.meta.generation:
        text = f"generation {resource.meta.generation} was not looked at by the controller yet"
        return rendered, Finding("profile-not-ready", where, text)
    return rendered, None


def _condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((each for each in conditions if each.type == kind), None)


def _broken(rendered: Rendered, where: str) -> Finding | None:
    """Whether the annotation is init data, and has the digest that is named beside it."""
    try:
        found = document.parse(annotation.decode(rendered.annotation))
    except MalformedMessage as err:
        return Finding("profile-broken", where, str(err))
    same = hmac.compare_digest(found.digest.hex().encode(), rendered.digest.encode("utf-8", "replace"))
    if not same or found.algorithm != rendered.algorithm:
        return Finding("profile-broken", where, "the init data have another digest than the one named beside them")
    return None
