"""The administrator's routes: upstream's requests unchanged, and ours below `/kbs/v0/admin/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kbs.admin.authorization import Permission
from kbs.plugins.model import Access as PluginAccess
from kbs.plugins.model import Plugin
from kbs.web.administration.candidates import CandidateRoutes
from kbs.web.administration.init_data import InitDataRoutes
from kbs.web.administration.policies import PolicyRoutes
from kbs.web.administration.policy_tools import PolicyToolRoutes
from kbs.web.administration.references import ReferenceRoutes
from kbs.web.administration.resources import ResourceRoutes, plugin_handler
from kbs.web.administration.service import ServiceRoutes
from kbs.web.model import Access, Family, Handler, Limit, Listener, Route


def routes(
    *,
    policies: PolicyRoutes,
    candidates: CandidateRoutes,
    tools: PolicyToolRoutes,
    references: ReferenceRoutes,
    init_data: InitDataRoutes,
    resources: ResourceRoutes | None,
    plugins: Mapping[str, Plugin],
    service: ServiceRoutes,
) -> Iterable[Route]:
    """Rows for everything an administrator may do."""
    yield _change("POST", "/kbs/v0/attestation-policy", Permission.POLICY_WRITE, policies.set_evidence, "rule.changed")
    yield _change("POST", "/kbs/v0/resource-policy", Permission.POLICY_WRITE, policies.set_resource, "rule.changed")
    yield _read("/kbs/v0/resource-policy", Permission.POLICY_READ, policies.list_resource)
    yield _read("/kbs/v0/reference-value/**", Permission.REFERENCE_READ, references.query)
    yield _change(
        "POST", "/kbs/v0/reference-value/**", Permission.REFERENCE_WRITE, references.register, "reference.changed"
    )
    yield _read("/kbs/v0/admin/policies", Permission.POLICY_READ, policies.list_all)
    yield from _policy_routes(policies, candidates)
    # they change nothing, yet are POSTs: they bring a text
    for name, tool in (
        ("policy-tools/lint", tools.lint),
        ("policy-tools/check", tools.check),
        ("policy-tools/test", tools.test),
        ("policy-tools/coverage", tools.coverage),
        ("policy-tools/fmt", tools.format),
        ("policy-tools/eval", tools.evaluate),
        ("decisions/*/eval", tools.evaluate_decision),
    ):
        yield _change("POST", f"/kbs/v0/admin/{name}", Permission.POLICY_WRITE, tool, "admin.read")
    yield from _reference_routes(references)
    yield from _init_data_routes(init_data)
    yield from _plugin_routes(plugins)
    if resources is not None:
        yield _read("/kbs/v0/admin/resources", Permission.RESOURCE_READ_METADATA, resources.list_all)
        yield _read("/kbs/v0/admin/resources/*/*/*", Permission.RESOURCE_READ_METADATA, resources.show)
        yield _change(
            "POST",
            "/kbs/v0/admin/resources/*/*/*/rollback",
            Permission.RESOURCE_WRITE,
            resources.roll_back,
            "resource.changed",
        )
        yield _change(
            "POST",
            "/kbs/v0/admin/resources/*/*/*/generate",
            Permission.RESOURCE_WRITE,
            resources.generate,
            "resource.changed",
        )
    yield _read("/kbs/v0/admin/decisions/*", Permission.AUDIT_READ, service.explain)
    yield _read("/kbs/v0/admin/status", Permission.AUDIT_READ, service.status)
    yield _change("POST", "/kbs/v0/admin/tokens", Permission.TOKEN_ISSUE, service.issue_token, "admin.token_issued")
    yield _change(
        "DELETE", "/kbs/v0/admin/tokens/*", Permission.TOKEN_REVOKE, service.revoke_token, "admin.token_revoked"
    )
    yield _change(
        "DELETE", "/kbs/v0/admin/tokens", Permission.TOKEN_REVOKE, service.revoke_identified, "admin.token_revoked"
    )


def _reference_routes(references: ReferenceRoutes) -> Iterable[Route]:
    values, read, write = "/kbs/v0/admin/reference-values", Permission.REFERENCE_READ, Permission.REFERENCE_WRITE
    changed = "reference.changed"
    yield _read(values, read, references.list_all)
    yield _change("DELETE", f"{values}/**", write, references.withdraw, changed)
    yield _change("DELETE", values, write, references.withdraw_named, changed)
    yield _change("POST", f"{values}/submit", write, references.submit, changed, Limit.STATEMENT)
    # changes nothing, yet is a POST: it brings a message
    yield _change("POST", f"{values}/dry-run", write, references.dry_run, "admin.read", Limit.STATEMENT)
    yield _read(f"{values}/statements", read, references.statements)
    yield _read(f"{values}/statements/*", read, references.statement)
    yield _change("POST", f"{values}/statements/*/revoke", write, references.revoke, changed)
    yield _read(f"{values}/messages/*", read, references.message)
    yield _read(f"{values}/why", read, references.why)
    yield _read(f"{values}/names", read, references.names)
    yield _read(f"{values}/statements/*/values", read, references.stated)
    yield _read(f"{values}/expiring", read, references.expiring)
    yield _read(f"{values}/misses", read, references.misses)
    yield _read(f"{values}/drift", read, references.drift)
    yield _read("/kbs/v0/admin/decisions/*/claims", Permission.AUDIT_READ, references.claims)


def _init_data_routes(init_data: InitDataRoutes) -> Iterable[Route]:
    one, read, write = "/kbs/v0/admin/init-data/*", Permission.REFERENCE_READ, Permission.REFERENCE_WRITE
    yield _read("/kbs/v0/admin/init-data", read, init_data.list_all)
    yield _read(one, read, init_data.show)
    yield _change("PUT", one, write, init_data.register, "reference.changed")
    yield _change("DELETE", one, write, init_data.remove, "reference.changed")
    yield _read("/kbs/v0/admin/init-data-origin/*", Permission.AUDIT_READ, init_data.explain)


def _policy_routes(policies: PolicyRoutes, candidates: CandidateRoutes) -> Iterable[Route]:
    one, read, write = "/kbs/v0/admin/policies/*/*", Permission.POLICY_READ, Permission.POLICY_WRITE
    yield _read(one, read, policies.show)
    yield _change("PUT", one, write, policies.set_any, "rule.changed")
    yield _change("DELETE", one, write, policies.remove, "rule.changed")
    yield _read(f"{one}/versions/*", read, policies.show_version)
    yield _change("POST", f"{one}/rollback", write, policies.roll_back, "rule.changed")
    yield _read(f"{one}/candidate", read, candidates.show)
    yield _change("PUT", f"{one}/candidate", write, candidates.stage, "rule.changed")
    yield _change("DELETE", f"{one}/candidate", write, candidates.discard, "rule.changed")
    yield _change("POST", f"{one}/candidate/activate", write, candidates.activate, "rule.changed")
    # changes nothing, yet is a POST: it brings a text
    yield _change("POST", f"{one}/what-if", write, candidates.what_if, "admin.read")


def _change(
    method: str, template: str, permission: Permission, handler: Handler, audit: str, limit: Limit = Limit.OTHER
) -> Route:
    return Route(
        method,
        template,
        Access.ADMIN,
        handler,
        limit=limit,
        family=Family.ADMIN,
        listener=Listener.ADMIN,
        audit=audit,
        permission=permission,
        changes=True,
    )


def _read(template: str, permission: Permission, handler: Handler) -> Route:
    return Route(
        "GET",
        template,
        Access.ADMIN,
        handler,
        family=Family.ADMIN,
        listener=Listener.ADMIN,
        audit="admin.read",
        permission=permission,
    )


def _plugin_routes(plugins: Mapping[str, Plugin]) -> Iterable[Route]:
    for name, plugin in plugins.items():
        for method, guard in plugin.guards().items():
            if guard.access is PluginAccess.ADMIN:
                assert guard.permission is not None
                handler = plugin_handler(name, plugin)
                yield _change(
                    method,
                    f"/kbs/v0/{name}/**",
                    Permission(guard.permission),
                    handler,
                    "resource.changed",
                    limit=Limit.RESOURCE,
                )
