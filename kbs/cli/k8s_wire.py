"""`kbs k8s wire`: everything that a namespace of a workload cluster needs for a profile."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kbs import __version__
from kbs.cli.connection import walled
from kbs.cli.k8s_cluster import FILE, apply_all, profile_of_cluster, profile_of_file, text_of
from kbs.cli.output import click_echo, console, done, fail, print_json, warn
from kbs.errors import MalformedMessage
from kbs.k8s.connection import connect
from kbs.k8s.model import PROFILE_LABEL, WorkloadProfile
from kbs.k8s.wiring.findings import Finding
from kbs.k8s.wiring.namespace import Wanted, missing, namespace_manifests
from kbs.k8s.wiring.profile import Profile, choose, profile_of
from kbs.sealed import token
from kbs.sealed.token import SealedSecret


@click.command("wire")
@click.option("--profile", "named", required=True, metavar="FILE|NAME", help="A WorkloadProfile with its status.")
@click.option("--namespace", required=True, help="Of the workload, where the objects go.")
@click.option("--from-kubeconfig", type=FILE, help="For NAME: the trusted cluster, where the profile is.")
@click.option("--from-namespace", help="For NAME: its namespace there. Default: that of --namespace.")
@click.option(
    "--sealed",
    multiple=True,
    metavar="SECRET/KEY=FILE",
    help="A sealed string (kbs secret seal) for a key of a Secret; repeatable.",
)
@click.option("--service-account", default="confidential", show_default=True, help="Name of the ServiceAccount.")
@click.option("--no-service-account", is_flag=True, help="Without it.")
@click.option("--no-network-policy", is_flag=True, help="Without it: Pods reach whatever others let them.")
@click.option("--apply", "applied", is_flag=True, help="Do it, in the cluster of --kubeconfig.")
@click.option("--kubeconfig", type=FILE, envvar="KUBECONFIG", help="The workload cluster. Default: $KUBECONFIG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def wire_command(
    named: str,
    namespace: str,
    from_kubeconfig: Path | None,
    from_namespace: str | None,
    sealed: tuple[str, ...],
    service_account: str,
    no_service_account: bool,
    no_network_policy: bool,
    applied: bool,
    kubeconfig: Path | None,
    as_json: bool,
) -> None:
    """Print, or apply, what Pods of a namespace need: a copy of the profile with what was rendered, a ServiceAccount
    without a token, sealed Secrets, and a way out to the KBS.

        kubectl get workloadprofile web -o yaml > web.yaml       # in the trusted cluster

        kbs k8s wire --profile web.yaml --namespace shop | kubectl apply -f -
    """
    if applied and kubeconfig is None:
        raise click.UsageError("--apply needs --kubeconfig FILE, or $KUBECONFIG")
    strings = _sealed(sealed)
    resource = _profile(named, from_kubeconfig, from_namespace or namespace)
    profile = _usable(resource, namespace)
    account = None if no_service_account else service_account
    manifests = namespace_manifests(resource, profile, Wanted(namespace, account, not no_network_policy, strings))
    _warn(profile, strings, network_policy=not no_network_policy)
    if applied:
        assert kubeconfig is not None
        _apply(kubeconfig, manifests, as_json=as_json)
    else:
        label = "" if as_json else f"# Put this label on Pods, or Pod templates:   {PROFILE_LABEL}: {profile.name}\n"
        click_echo(label + text_of(manifests, as_json=as_json).removesuffix("\n"))
    if applied and not as_json:
        console().print(f"[dim]next:[/] put the label {PROFILE_LABEL}: {profile.name} on Pods, or Pod templates")


def _profile(named: str, kubeconfig: Path | None, namespace: str) -> WorkloadProfile:
    if kubeconfig is not None:
        return profile_of_cluster(connect(kubeconfig, user_agent=f"kbs/{__version__}"), namespace, named)
    file = Path(named)
    if named != "-" and not file.is_file():
        fail(f"there is no file {named}", hint="for a profile of a cluster: --from-kubeconfig FILE")
        raise click.exceptions.Exit(1)
    return profile_of_file(file)


def _usable(resource: WorkloadProfile, namespace: str) -> Profile:
    """A profile that Pods of the namespace may use."""
    profile = profile_of(resource)
    found = choose([profile], namespace, profile.name)
    if isinstance(found, Finding):
        fail(f"{found.text} [{found.name}]", hint=_hint(found, profile, namespace))
        raise click.exceptions.Exit(1)
    return found


def _hint(found: Finding, profile: Profile, namespace: str) -> str:
    if found.name == "namespace-not-allowed":
        return f"add {namespace} to spec.allowedNamespaces of WorkloadProfile {profile.name} in the trusted cluster"
    return f"kubectl -n {profile.namespace or 'NAMESPACE'} describe workloadprofile {profile.name}"


def _sealed(words: Sequence[str]) -> Mapping[str, Mapping[str, SealedSecret]]:
    """Secret → key → sealed string, each of a file."""
    found: dict[str, dict[str, SealedSecret]] = {}
    for word in words:
        where, equals, file = word.partition("=")
        secret, slash, key = where.partition("/")
        if not (equals and slash and secret and key and file):
            raise click.UsageError(f"--sealed {word!r}: write SECRET/KEY=FILE")
        if key in found.get(secret, {}):
            raise click.UsageError(f"--sealed {where} stands twice")
        text = sys.stdin.read(token.MAX_SIZE + 2) if file == "-" else Path(file).read_text("utf-8", "replace")
        try:
            found.setdefault(secret, {})[key] = token.parse(text.removesuffix("\n"))
        except MalformedMessage as err:
            raise MalformedMessage(f"--sealed {where}: {err}") from None
    return found


def _warn(profile: Profile, strings: Mapping[str, Mapping[str, SealedSecret]], *, network_policy: bool) -> None:
    for each in missing(profile, strings):
        warn(f"the profile names the Secret {each}: seal it (kbs secret seal vault), and give it with --sealed")
    if network_policy:
        ways = "DNS, the KBS, registries on port 443" if profile.images.pull == "guest" else "DNS and the KBS"
        warn(f"the NetworkPolicy lets Pods of this profile out to {ways}; add what else they reach")


def _apply(kubeconfig: Path, manifests: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    lines = apply_all(connect(kubeconfig, user_agent=f"kbs/{__version__}"), manifests)
    if as_json:
        print_json({"applied": lines})
        return
    for line in lines:
        what, _, how = line.rpartition(" ")
        done(how, what)
