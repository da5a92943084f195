"""`kbs k8s migrate`: an installation of the reference, written down as one of ours, with a report of what differs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from kbs import __version__
from kbs.cli.connection import walled
from kbs.cli.output import click_echo, console, done, fail, print_json, print_table
from kbs.cli.policy_files import compiler
from kbs.clock import system_clock
from kbs.k8s.api import CONFIG_MAPS, SECRETS, Api, ApiKind, ApiNotFound
from kbs.k8s.connection import connect
from kbs.k8s.migrate import Draft, Given, Question, Verdict, migrate
from kbs.k8s.migrate.model import MEANINGS
from kbs.k8s.migrate.output import files_of
from kbs.k8s.migrate.policies import PolicyJudge
from kbs.k8s.migrate.report import document, markdown, steps_of
from kbs.k8s.migrate.sources import DOMAIN
from kbs.policy.wasm import WasmEngine
from rvps.model import Snapshot

_EXTENSIONS: Final = (".toml", ".json", ".yaml", ".yml")
_TEES: Final = ("az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "hygondcu", "nitro", "se", "sgx", "snp", "tdx", "tpm")
_LIVE: Final[Mapping[str, ApiKind]] = {
    "KbsConfig": ApiKind("confidentialcontainers.org", "v1alpha1", "kbsconfigs"),
    "TrusteeConfig": ApiKind("confidentialcontainers.org", "v1alpha1", "trusteeconfigs"),
    "Deployment": ApiKind("apps", "v1", "deployments"),
    "StatefulSet": ApiKind("apps", "v1", "statefulsets"),
    "Service": ApiKind("", "v1", "services"),
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
}
_MOST: Final = 16 << 20  # octets of one file
_COLOURS: Final[Mapping[Verdict, str]] = {
    Verdict.UNKNOWN: "bold red",
    Verdict.REFUSED: "red",
    Verdict.BY_HAND: "yellow",
    Verdict.NOT_OFFERED: "magenta",
    Verdict.OURS: "green",
    Verdict.NOT_NEEDED: "dim",
}


def _namespace(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del context, parameter
    if value is not None and not DOMAIN.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no name of a namespace")
    return value


@click.command("migrate", short_help="A Trustee installation as one of ours, with a report of differences.")
@click.option(
    "--from",
    "inputs",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file of `kubectl get -o yaml`, a settings file, or a folder of them; repeatable.",
)
@click.option(
    "--from-namespace", callback=_namespace, help="In place of files: the namespace of the old broker, in a cluster."
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --from-namespace: the cluster.  [default: ~/.kube/config]",
)
@click.option("--context", help="Of the kubeconfig.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder. Without it only the report is shown.")
@click.option(
    "--namespace",
    "-n",
    callback=_namespace,
    help="Of the new broker. Default: that of the old one, whose Secrets it can use.",
)
@click.option("--tee", "tees", multiple=True, type=click.Choice(_TEES), help="TEE to accept; repeatable.")
@click.option(
    "--manifests",
    type=click.Path(path_type=Path),
    default=Path("k8s"),
    show_default=True,
    help="The folder k8s of this release, on which the kustomization builds.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Public keys and certificates that settings name are looked for below this folder.",
)
@click.option("--leave-unknown", is_flag=True, help="Write although there are settings that nobody here knows.")
@click.option(
    "--opa",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The opa program. Default: the one on the search path.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def migrate_command(
    inputs: tuple[Path, ...],
    from_namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    out: Path | None,
    namespace: str | None,
    tees: tuple[str, ...],
    manifests: Path,
    root: Path | None,
    leave_unknown: bool,
    opa: Path | None,
    as_json: bool,
) -> None:
    """Read what the Trustee operator, its Helm chart or its settings files say, and write what this broker needs:

        kubectl get kbsconfigs,trusteeconfigs,deployments,services,configmaps,secrets -n NS -o yaml > old.yaml

        kbs k8s migrate --from old.yaml --out new

    Every setting is in the report with what became of it. Secrets stay where they are: their bytes are never written.
    Exits 1, and writes nothing, if there are settings that nobody here knows.
    """
    if bool(inputs) == (from_namespace is not None):
        raise click.UsageError("give --from FILE, or --from-namespace NAMESPACE, one of them")
    if from_namespace is None and (kubeconfig is not None or context is not None):
        raise click.UsageError("--kubeconfig and --context belong to --from-namespace")
    if out is not None:
        _check_target(out, manifests)
    objects = [] if from_namespace is None else _ask(from_namespace, kubeconfig, context)
    files = [given for path in inputs for given in _read(path)]
    question = Question(files, objects, namespace, tees, _local(root))
    draft = migrate(question, _judge(opa), system_clock())
    unknown = bool(draft.of(Verdict.UNKNOWN)) and not leave_unknown
    folder = None if out is None or unknown else out
    if folder is not None:
        _write(draft, folder, manifests)
    if as_json:
        print_json(document(draft, None if folder is None else str(folder)))
    else:
        _show(draft, folder)
    if unknown:
        if not as_json:
            fail(
                "there are settings that nobody here knows; nothing was written",
                hint="look at them, then: --leave-unknown",
            )
        raise click.exceptions.Exit(1)


def _check_target(out: Path, manifests: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"--out {out}: exists and is not an empty folder; nothing is written over")
    if not (manifests / "overlays/prod/kustomization.yaml").is_file():
        raise click.UsageError(f"--manifests {manifests}: is not the folder k8s of this release (overlays/prod)")


def _read(path: Path) -> list[Given]:
    """The file, or those of a folder that may be settings or manifests."""
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.is_file() and each.suffix.lower() in _EXTENSIONS)
        if not found:
            raise click.UsageError(f"--from {path}: holds no {', '.join(_EXTENSIONS)}")
        return [_file(each) for each in found]
    if path.suffix.lower() not in _EXTENSIONS:
        raise click.UsageError(f"--from {path}: is none of {', '.join(_EXTENSIONS)}")
    return [_file(path)]


def _file(path: Path) -> Given:
    with path.open("rb") as file:
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise click.UsageError(f"--from {path}: is larger than {_MOST} octets")
    return Given(str(path), content)


def _ask(namespace: str, kubeconfig: Path | None, context: str | None) -> list[Mapping[str, Any]]:
    file = kubeconfig or Path(os.path.expanduser("~/.kube/config"))
    if not file.is_file():
        raise click.UsageError(f"{file} does not exist: name another with --kubeconfig")
    api: Api = connect(file, user_agent=f"kbs/{__version__}", context=context)
    found: list[Mapping[str, Any]] = []
    for kind, resource in _LIVE.items():
        try:
            listed = api.list(resource, namespace).items
        except ApiNotFound:  # the operator is not installed there
            continue
        found += [{"apiVersion": _version(resource), "kind": kind, **each} for each in listed]
    return found


def _version(kind: ApiKind) -> str:
    return f"{kind.group}/{kind.version}" if kind.group else kind.version


def _local(root: Path | None) -> Callable[[str], bytes | None]:
    """Files below a folder; a path never leads out of it."""

    def look(path: str) -> bytes | None:
        if root is None:
            return None
        target = (root / path.lstrip("/")).resolve()
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            return None
        with target.open("rb") as file:
            return file.read(_MOST)

    return look


def _judge(opa: Path | None) -> PolicyJudge:
    nothing = Snapshot("", {}, b"{}", None, encoded_sets=b"{}")
    return PolicyJudge(compiler(opa), WasmEngine(system_clock), nothing)


def _write(draft: Draft, folder: Path, manifests: Path) -> None:
    """All files, or none: they come into being in a folder beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    where = os.path.relpath(manifests.resolve(), folder.resolve())
    files = files_of(draft, where) | {"report.md": markdown(draft, str(folder)).encode()}
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        for name, content in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _show(draft: Draft, folder: Path | None) -> None:
    several = len({each.source for each in draft.entries} - {""}) > 1
    for verdict, meaning in MEANINGS.items():
        entries = draft.of(verdict)
        if not entries:
            continue
        console().print(f"[{_COLOURS[verdict]}]{verdict}[/]  [dim]{meaning}[/]")
        first = 0 if several else 1
        rows: Sequence[Sequence[str]] = [(each.source, each.setting, each.ours, each.why)[first:] for each in entries]
        print_table(("where", "setting", "here", "why")[first:], rows)
        click_echo("")
    if folder is None:
        return
    done("written", f"{folder}: settings, kustomization, {len(draft.objects) + 1} objects, report.md")
    console().print("[bold]next[/]")
    for step in steps_of(draft, str(folder)):
        click_echo(f"  {step}")
