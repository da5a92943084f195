"""What commands for clusters share: the way to an API server, manifests of a file, and manifests as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import yaml

from kbs.errors import MalformedMessage
from kbs.initdata import yaml_text
from kbs.k8s.api import Api, ApiConflict, ApiKind, api_kind
from kbs.k8s.documents import read
from kbs.k8s.model import WORKLOAD_PROFILE, WorkloadProfile

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
ITEMS: Final = "List"

_KINDS: Final[Mapping[str, ApiKind]] = {
    "NetworkPolicy": ApiKind("networking.k8s.io", "v1", "networkpolicies"),
    "Secret": ApiKind("", "v1", "secrets"),
    "ServiceAccount": ApiKind("", "v1", "serviceaccounts"),
    "WorkloadProfile": api_kind(WORKLOAD_PROFILE),
}


def objects_of(file: Path) -> list[Mapping[str, Any]]:
    """The objects of a file of manifests, those of lists one by one; `-` is standard input.

    Raises:
        MalformedMessage: no YAML, or not objects. OSError: it cannot be read.
    """
    stream: Any = sys.stdin.buffer
    if str(file) == "-":
        raw = stream.read(yaml_text.MAX_SIZE + 1)
    else:
        with file.open("rb") as opened:
            raw = opened.read(yaml_text.MAX_SIZE + 1)
    try:
        return [*_objects(yaml_text.documents(raw))]
    except MalformedMessage as err:
        raise MalformedMessage(f"{file}: {err}") from None


def _objects(documents: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    for each in documents:
        if each is None:
            continue
        if not isinstance(each, dict) or not isinstance(each.get("kind"), str):
            raise MalformedMessage("a document is no object of Kubernetes: it has no kind")
        if each["kind"].endswith(ITEMS) and isinstance(each.get("items"), list):
            yield from _objects(each["items"])
        else:
            yield each


def profile_of_file(file: Path) -> WorkloadProfile:
    """The one WorkloadProfile of a file.

    Raises:
        MalformedMessage: none, several, or one that cannot be read. OSError: it cannot be read.
    """
    found = [each for each in objects_of(file) if each["kind"] == WORKLOAD_PROFILE.name]
    if len(found) != 1:
        raise MalformedMessage(f"{file}: has {len(found)} WorkloadProfiles, expected one")
    return read(WORKLOAD_PROFILE, found[0])


def profile_of_cluster(api: Api, namespace: str, name: str) -> WorkloadProfile:
    """A profile from an API server, with its status.

    Raises:
        ApiError: it is not there, or nobody answers. MalformedMessage: it cannot be read.
    """
    return read(WORKLOAD_PROFILE, api.get(api_kind(WORKLOAD_PROFILE), namespace, name))


def apply_all(api: Api, manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Create each, or merge it into what is there; what was done, in their order.

    Raises:
        ApiError: the first that was not taken. Those before it are there: again is safe.
    """
    done = []
    for each in manifests:
        kind, metadata = _KINDS[each["kind"]], each["metadata"]
        try:
            api.create(kind, metadata["namespace"], each)
            done.append(f"{each['kind']} {metadata['name']} created")
        except ApiConflict:
            api.patch(kind, metadata["namespace"], metadata["name"], each)
            done.append(f"{each['kind']} {metadata['name']} configured")
    return done


def text_of(manifests: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """For `kubectl apply -f -`: YAML documents, or one List as JSON."""
    if as_json:
        return json.dumps({"apiVersion": "v1", "kind": ITEMS, "items": [*manifests]}, indent=2) + "\n"
    text: str = yaml.dump_all(manifests, Dumper=_Dumper, explicit_start=True, sort_keys=False, width=1 << 20)
    return text


class _Dumper(yaml.SafeDumper):
    """Certificates as the lines that they are, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _lines(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)
