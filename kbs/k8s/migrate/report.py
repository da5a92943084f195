"""What a migration did, for people and for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kbs.k8s.migrate.keys import wanted_hosts
from kbs.k8s.migrate.model import MEANINGS, Draft


def steps_of(draft: Draft, folder: str) -> list[str]:
    """Commands and advice in order. folder: where the files are."""
    namespace = draft.namespace
    hosts = "".join(f" --host {host}" for host in wanted_hosts(draft.hosts, namespace))
    kept = " --without-tls" if draft.tls is not None else hosts
    found = [
        f"kbs k8s keys --namespace {namespace}{kept} --out kbs-keys.yaml",
        "kubectl create -f kbs-keys.yaml",
    ]
    if draft.replicated:
        found.append(
            f"kubectl create secret generic kbs-postgres --namespace {namespace} --from-file=dsn=kbs.dsn "
            "--from-file=ca.crt=db-ca.pem   # an empty database: docs/storage.md"
        )
    found += [
        f"kubectl kustomize {folder} | kbs k8s lint -",
        f"kubectl apply --server-side -k {folder}",
        f"kubectl apply --server-side -k {folder}/objects",
        f"kubectl get kbs --namespace {namespace}   # until all are Ready",
    ]
    if [host for host in draft.hosts if host != "kbs"]:
        found.append(
            f"kubectl replace --force --filename {folder}/switch.yaml   # guests that call the old Service come to the "
            "new broker; first delete what would put the old one back (KbsConfig, Helm release)"
        )
    return found + draft.steps


def markdown(draft: Draft, folder: str) -> str:
    """The report as a file."""
    counts = ", ".join(f"{len(draft.of(verdict))} {verdict}" for verdict in MEANINGS if draft.of(verdict))
    parts = ["# Migration report", "", f"{counts}. No bytes of a Secret were written.", "", "## Steps", ""]
    for number, step in enumerate(steps_of(draft, folder), 1):
        parts.append(f"{number}. `{step}`" if step.startswith(("kbs ", "kubectl ")) else f"{number}. {step}")
    for verdict, meaning in MEANINGS.items():
        entries = draft.of(verdict)
        if entries:
            heading = f"{verdict[0].upper()}{verdict[1:]}"
            parts += ["", f"## {heading}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
            parts += ["| where | setting | here | why |", "|---|---|---|---|"]
            parts += [
                f"| {_cell(each.source)} | {_cell(each.setting)} | {_cell(each.ours)} | {_cell(each.why)} |"
                for each in entries
            ]
    return "\n".join(parts) + "\n"


def document(draft: Draft, folder: str | None) -> Mapping[str, Any]:
    """The report for scripts."""
    return {
        "namespace": draft.namespace,
        "written": folder,
        "overlay": "ha" if draft.replicated else "prod",
        "settings": draft.settings,
        "objects": [{"kind": each["kind"], "name": each["metadata"]["name"]} for each in draft.objects],
        "entries": [dataclasses.asdict(each) for each in draft.entries],
        "counts": {verdict.value: len(draft.of(verdict)) for verdict in MEANINGS},
        "steps": steps_of(draft, folder or "FOLDER"),
    }


def _cell(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text).replace("|", "\\|").replace("<", "&lt;")
