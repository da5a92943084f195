"""Scopes of resource policies: a part of the tree, or a tenant. What stands under one is asked beside the global one.

An id says the scope: `path:REPOSITORY`, `path:REPOSITORY:TYPE`, `tenant:NAME`. A tenant is a set of repositories that
the settings name. A request is granted if the global policy and that of every scope it falls into allow it; a scope
without a policy asks for nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from kbs.errors import NameNotAllowed

PLUGIN: Final = "resource"
"""The plugin whose paths have repositories. Others know the global policy only."""

_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}"  # KBS protocol 1.4
_PATH: Final = re.compile(rf"path:{_SEGMENT}(:{_SEGMENT})?")
_TENANT: Final = re.compile(r"tenant:([A-Za-z0-9][A-Za-z0-9._-]{0,127})")


class Scopes:
    """Which scopes a path falls into. `tenants`: tenant → its repositories."""

    def __init__(self, tenants: Mapping[str, Sequence[str]] | None = None) -> None:
        self._tenants = frozenset(tenants or {})
        of: dict[str, list[str]] = {}
        for tenant, repositories in (tenants or {}).items():
            for repository in repositories:
                of.setdefault(repository, []).append(f"tenant:{tenant}")
        self._of = {repository: tuple(sorted(ids)) for repository, ids in of.items()}

    def of(self, segments: Sequence[str]) -> tuple[str, ...]:
        """Ids of all scopes of a decoded path, tenants first, then from the root down."""
        if not segments:
            return ()
        first = f"path:{segments[0]}"
        tenants = self._of.get(segments[0], ())
        return (*tenants, first) if len(segments) == 1 else (*tenants, first, f"{first}:{segments[1]}")

    def check(self, policy_id: str) -> None:
        """
        Raises:
            NameNotAllowed: no scope, or a tenant that no setting names: its policy would never be asked.
        """
        if _PATH.fullmatch(policy_id):
            return
        tenant = _TENANT.fullmatch(policy_id)
        if tenant is None:
            raise NameNotAllowed(
                "a resource policy has the id `resource-policy`, or that of a scope: `path:REPOSITORY`, "
                "`path:REPOSITORY:TYPE` or `tenant:NAME`"
            )
        if tenant[1] not in self._tenants:
            raise NameNotAllowed(
                f"the setting policy.tenants names no tenant {tenant[1]!r}: its policy would never be asked"
            )
