"""Looks at rendered manifests before they are installed: what is unsafe for a broker, a controller or a webhook.

Pure: manifests in, findings out. Nothing is asked of a cluster.
"""

from __future__ import annotations

from typing import Final

from kbs.k8s.lint import broker, cluster, network, pod_security
from kbs.k8s.lint.model import Finding, Rendered, Rule, Severity, error
from kbs.k8s.lint.objects import read

RULES: Final[tuple[Rule, ...]] = (
    pod_security.restricted,
    pod_security.hardened,
    pod_security.tokens,
    broker.settings_are_good,
    broker.store_lasts,
    broker.secrets_are_files,
    broker.is_watched,
    network.services,
    network.tls_ends_in_the_broker,
    network.policies,
    cluster.rights,
    cluster.webhooks,
    cluster.namespaces,
    cluster.budgets,
)

__all__ = ["RULES", "Finding", "Rendered", "Severity", "lint", "read"]


def lint(rendered: Rendered) -> list[Finding]:
    """Everything that is wrong; errors first, then by object and rule."""
    found = {finding for rule in RULES for finding in _looked(rule, rendered)}
    return sorted(found, key=lambda each: (each.severity != Severity.ERROR, each.place, each.rule, each.text))


def _looked(rule: Rule, rendered: Rendered) -> list[Finding]:
    """What a rule finds; an error where a member of a type that no API server takes keeps it from looking."""
    try:
        return list(rule(rendered))
    except (TypeError, ValueError, LookupError, AttributeError) as err:
        name = f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"
        text = f"the rule {name} cannot look at them: a member is of another type ({type(err).__name__})"
        return [error("malformed", "the manifests", text, "kubectl apply --dry-run=server says which")]
