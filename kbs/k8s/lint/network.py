"""Who reaches which port: Services, routes and NetworkPolicies around the broker.

Guests may come from anywhere. Administration and metrics are for those who are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kbs.config import Settings, port_of
from kbs.k8s.lint.broker import Configured, configured
from kbs.k8s.lint.model import Finding, Object, Rendered, error
from kbs.k8s.lint.objects import PodTemplate, members, namespace, place, pods, selects, table, values

_OUTSIDE: Final = ("LoadBalancer", "NodePort")
_ROUTES: Final = ("Ingress", "HTTPRoute", "TLSRoute", "TCPRoute", "GRPCRoute", "Route")


def services(rendered: Rendered) -> Iterator[Finding]:
    """Each group of ports has a Service of its own; only guests' may be open to outside, and only with TLS."""
    for each in configured(rendered):
        if each.settings is None:
            continue
        groups = port_groups(each.settings)
        for service in _services_of(rendered, each.pod):
            reached = {groups.get(number) for number in _targets(service, each)}
            yield from _one_service(rendered, service, reached, each.settings)


def port_groups(settings: Settings) -> dict[int, str]:
    """Port → guest, admin or metrics."""
    server = settings.server
    found = {port_of(address): "guest" for address in server.listen}
    if server.admin_listen is not None:
        found[port_of(server.admin_listen)] = "admin"
    if server.metrics_listen is not None:
        found[port_of(server.metrics_listen)] = "metrics"
    return found


def _services_of(rendered: Rendered, pod: PodTemplate) -> list[Object]:
    return [
        each
        for each in rendered.of("Service")
        if namespace(each) == pod.namespace
        and (selector := table(each, "spec", "selector"))
        and all(pod.labels.get(name) == value for name, value in selector.items())
    ]


def _targets(service: Object, each: Configured) -> list[int]:
    """Ports of the container that a Service leads to."""
    named = {port.get("name"): port.get("containerPort") for port in members(each.container, "ports")}
    found = []
    for port in members(service, "spec", "ports"):
        target = port.get("targetPort", port.get("port"))
        number = named.get(target) if isinstance(target, str) else target
        if isinstance(number, int):
            found.append(number)
    return found


def _one_service(
    rendered: Rendered, service: Object, reached: set[str | None], settings: Settings
) -> Iterator[Finding]:
    where = place(service)
    kind = table(service, "spec").get("type", "ClusterIP")
    if None in reached:
        yield error("port-unknown", where, "leads to a port on which nothing listens", "targetPort: guest, by name")
    known = sorted(each for each in reached if each is not None)
    if len(known) > 1:
        text = f"opens {' and '.join(known)} together"
        yield error("ports-together", where, text, "a Service of its own for each, as the base has")
    exposed = kind in _OUTSIDE or bool(values(service, "spec", "externalIPs"))
    if exposed and set(known) - {"guest"}:
        text = f"opens {', '.join(sorted(set(known) - {'guest'}))} to outside the cluster"
        yield error("admin-outside", where, text, "type: ClusterIP; administrate through the controller or a tunnel")
    routed = [place(route) for route in rendered.of(*_ROUTES) if _leads_to(route, service)]
    if routed and set(known) - {"guest"}:
        text = f"{', '.join(routed)} opens {', '.join(sorted(set(known) - {'guest'}))}"
        yield error("admin-outside", where, text, "route to the guests' Service only")
    if settings.server.insecure_http and (exposed or routed):
        behind = [kind] if exposed else routed
        text = f"plain HTTP behind {', '.join(behind)}: whoever is on the way answers in its place"
        yield error("http-outside", where, text, "remove server.insecure_http: TLS ends in the broker")


def _leads_to(route: Object, service: Object) -> bool:
    name = table(service, "metadata").get("name")
    return namespace(route) == namespace(service) and name in set(_backends(route.get("spec")))


def _backends(document: Any) -> Iterator[str]:
    """Names of Services in a route, whatever its kind: Ingress, routes of the Gateway API, OpenShift's."""
    if isinstance(document, Mapping):
        for member, value in document.items():
            if member == "backendRefs":
                yield from (str(each.get("name")) for each in members({"v": value}, "v"))
            elif member in ("service", "to") and isinstance(value, Mapping):
                yield str(value.get("name"))
            yield from _backends(value)
    elif isinstance(document, list):
        for each in document:
            yield from _backends(each)


def tls_ends_in_the_broker(rendered: Rendered) -> Iterator[Finding]:
    """A route that ends TLS before the broker shows tokens and cookies to whatever ends it."""
    for each in configured(rendered):
        if each.settings is None or each.settings.server.insecure_http:
            continue
        for service in _services_of(rendered, each.pod):
            for route in rendered.of("Ingress", "HTTPRoute", "GRPCRoute"):
                if _leads_to(route, service) and not _passes_through(route):
                    text = "ends TLS before the broker: guests then trust another certificate than the broker's"
                    yield error("tls-ends-early", place(route), text, "a TLSRoute, or an Ingress with TLS passthrough")


def _passes_through(route: Object) -> bool:
    annotations = table(route, "metadata", "annotations")
    return route["kind"] == "Ingress" and any(
        name.endswith("/ssl-passthrough") and value == "true" for name, value in annotations.items()
    )


def policies(rendered: Rendered) -> Iterator[Finding]:
    """Every Pod is under NetworkPolicies for both ways, and the broker's open only what they should."""
    listed = rendered.of("NetworkPolicy")
    for pod in pods(rendered):
        mine = [each for each in listed if _covers(each, pod)]
        for way in ("Ingress", "Egress"):
            if not any(way in _ways(each) for each in mine):
                text = f"no NetworkPolicy limits its {'incoming' if way == 'Ingress' else 'outgoing'} connections"
                yield error("no-network-policy", pod.place, text, "a default-deny policy for the namespace")
    for each in configured(rendered):
        if each.settings is not None:
            private = {number: group for number, group in port_groups(each.settings).items() if group != "guest"}
            for policy in listed:
                if _covers(policy, each.pod):
                    yield from _open(policy, each, private)


def _covers(policy: Object, pod: PodTemplate) -> bool:
    if namespace(policy) != pod.namespace:
        return False
    return selects(table(policy, "spec", "podSelector"), pod.labels)


def _ways(policy: Object) -> list[Any]:
    """Source: Kubernetes API, NetworkPolicySpec.policyTypes, with its defaults."""
    implied = ["Ingress", "Egress"] if table(policy, "spec").get("egress") else ["Ingress"]
    return values(policy, "spec", "policyTypes") or implied


def _open(policy: Object, each: Configured, private: Mapping[int, str]) -> Iterator[Finding]:
    named = {port.get("name"): port.get("containerPort") for port in members(each.container, "ports")}
    for rule in members(policy, "spec", "ingress"):
        sources = members(rule, "from")
        anybody = not sources or any(_is_everybody(source) for source in sources)
        if not anybody:
            continue
        for number, group in private.items():
            if _includes(rule, number, named):
                text = f"lets everybody reach the {group} port"
                yield error("admin-open", place(policy), text, "name who may: from.namespaceSelector, from.podSelector")
    for rule in members(policy, "spec", "egress"):
        if not rule.get("to") and not rule.get("ports"):
            text = "lets the broker connect to anything"
            yield error("egress-open", place(policy), text, "list DNS, vendors on 443 and the database")


def _is_everybody(source: Mapping[str, Any]) -> bool:
    block = table(source, "ipBlock").get("cidr")
    if block is not None:
        return block in ("0.0.0.0/0", "::/0")
    selectors = [source[name] for name in ("namespaceSelector", "podSelector") if source.get(name) is not None]
    return "namespaceSelector" in source and not any(selectors)


def _includes(rule: Mapping[str, Any], number: int, named: Mapping[Any, Any]) -> bool:
    ports = members(rule, "ports")
    if not ports:
        return True
    for port in ports:
        first = port.get("port")
        first = named.get(first) if isinstance(first, str) else first
        last = port.get("endPort", first)
        if port.get("protocol", "TCP") == "TCP" and (first is None or _between(first, number, last)):
            return True
    return False


def _between(first: Any, number: int, last: Any) -> bool:
    return isinstance(first, int) and isinstance(last, int) and first <= number <= last
