"""Everything that an API server holds, by name, to compare before with after."""

from __future__ import annotations

from collections.abc import Set

from tests.k8s.cluster import Cluster, wait_until

_PASSING = {"events"}  # they end by themselves within the hour


def inventory(cluster: Cluster) -> set[str]:
    """Every object of every kind that can be listed, as `group/version/plural namespace/name`."""
    found: set[str] = set()
    for base in _groups(cluster):
        for resource in cluster.read(base)["resources"]:
            if "list" in resource["verbs"] and resource["name"] not in _PASSING:
                for item in cluster.read(f"{base}/{resource['name']}")["items"]:
                    metadata = item["metadata"]
                    place = f"{base.split('/', 2)[2]}/{resource['name']}"
                    found.add(f"{place} {metadata.get('namespace', '')}/{metadata['name']}")
    return found


def _groups(cluster: Cluster) -> list[str]:
    """The paths of all groups, each in the version that the API server prefers."""
    groups = cluster.read("/apis")["groups"]
    return ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]


def wait_until_left(cluster: Cluster, before: Set[str], left: Set[str] = frozenset()) -> None:
    """Until nothing has come since `before` but `left`, all of which is there. What takes time to go is waited for."""
    seen: set[str] = set()

    def settled() -> bool:
        seen.clear()
        seen.update(inventory(cluster) - before)
        return seen == left

    try:
        wait_until(settled, "only that is left", seconds=60)
    except AssertionError:
        raise AssertionError(f"left, and should not be: {seen - left}; gone: {left - seen}") from None
