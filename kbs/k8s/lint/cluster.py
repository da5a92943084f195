"""Rights, admission webhooks, namespaces and disruption budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kbs.k8s.lint.model import Finding, Rendered, error, warning
from kbs.k8s.lint.objects import members, namespace, place, pods, selects, table, values

_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_PODS: Final = frozenset({"pods", "pods/ephemeralcontainers", "pods/*", "*", "*/*"})
_READS: Final = frozenset({"get", "list", "watch"})
_ESCALATES: Final = frozenset({"escalate", "bind", "impersonate"})


def rights(rendered: Rendered) -> Iterator[Finding]:
    """No wildcards, no verbs that make more rights, no reading of all Secrets of a cluster unnoticed."""
    for role in rendered.of("Role", "ClusterRole"):
        for rule in members(role, "rules"):
            stars = [name for name in ("verbs", "resources", "apiGroups") if "*" in values(rule, name)]
            if stars:
                yield error("rights-wildcard", place(role), f"'*' in {', '.join(stars)}", "list what is needed")
            verbs = set(map(str, values(rule, "verbs")))
            if verbs & _ESCALATES:
                named = ", ".join(sorted(verbs & _ESCALATES))
                yield error("rights-escalate", place(role), f"may {named}", "remove the verb")
            secrets = "secrets" in values(rule, "resources") and not values(rule, "resourceNames")
            if role["kind"] == "ClusterRole" and secrets and verbs & _READS and _is_bound_everywhere(rendered, role):
                fix = "bind the ClusterRole by RoleBindings in the namespaces that need it"
                yield warning("rights-all-secrets", place(role), "reads the Secrets of every namespace", fix)
    for binding in rendered.of("ClusterRoleBinding", "RoleBinding"):
        if table(binding, "roleRef").get("name") == "cluster-admin":
            yield error("rights-wildcard", place(binding), "gives cluster-admin", "a role with what is needed")


def _is_bound_everywhere(rendered: Rendered, role: object) -> bool:
    name = table(role, "metadata").get("name")
    return any(table(each, "roleRef").get("name") == name for each in rendered.of("ClusterRoleBinding"))


def webhooks(rendered: Rendered) -> Iterator[Finding]:
    """What admits Pods fails closed, in time, and without side effects."""
    for document in rendered.of("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for hook in members(document, "webhooks"):
            where = f"{place(document)} {hook.get('name')}"
            asked_of = {str(each) for rule in members(hook, "rules") for each in values(rule, "resources")}
            if hook.get("failurePolicy", "Fail") != "Fail" and asked_of & _PODS:
                text = "while it does not answer, Pods start as they are"
                yield error("webhook-fails-open", where, text, "failurePolicy: Fail")
            if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
                yield error("webhook-side-effects", where, "dry runs are refused", "sideEffects: None")
            url = table(hook, "clientConfig").get("url")
            if isinstance(url, str) and not url.startswith("https://"):
                yield error("webhook-plain", where, "is asked without TLS", "clientConfig.service, or an https:// URL")


def namespaces(rendered: Rendered) -> Iterator[Finding]:
    """Namespaces that are made here hold their Pods to the restricted profile."""
    for document in rendered.of("Namespace"):
        if table(document, "metadata", "labels").get(_ENFORCE) != "restricted":
            fix = f"label {_ENFORCE}: restricted"
            yield error("namespace-not-restricted", place(document), "takes Pods of any profile", fix)


def budgets(rendered: Rendered) -> Iterator[Finding]:
    """What runs more than once has a disruption budget, and none forbids every eviction."""
    listed = rendered.of("PodDisruptionBudget")
    for pod in pods(rendered):
        replicas = table(pod.owner, "spec").get("replicas", 1)
        mine = [
            each
            for each in listed
            if namespace(each) == pod.namespace and selects(table(each, "spec", "selector"), pod.labels)
        ]
        if isinstance(replicas, int) and replicas > 1 and not mine:
            text = f"{replicas} replicas may be evicted at once"
            yield warning("no-budget", pod.place, text, "a PodDisruptionBudget with maxUnavailable: 1")
        for budget in mine:
            least = table(budget, "spec").get("minAvailable")
            if table(budget, "spec").get("maxUnavailable") in (0, "0%") or least == "100%" or least == replicas:
                yield warning("budget-blocks", place(budget), "no node can be drained", "maxUnavailable: 1")
