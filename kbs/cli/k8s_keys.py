"""`kbs k8s keys`: the Secrets that a broker in a cluster needs before it is installed."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import yaml

from kbs.cli.output import click_echo, done, fail, write_private
from kbs.cli.parameters import Duration
from kbs.clock import system_clock
from kbs.k8s.keys import Wanted, key_manifests

_LONGEST_HOST = 253
_HOST = re.compile(
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
    r"(?![0-9]+$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")


def is_terminal() -> bool:
    """What is printed would be seen."""
    return sys.stdout.isatty()


def _label(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A DNS label that leaves room for what is put behind it (RFC 1123 section 2.1)."""
    del context, parameter
    if not _LABEL.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not 1 to 50 of a-z 0-9 -, a letter or digit first and last")
    return value


def _hosts(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses, and host names (RFC 1123 section 2.1) whose first label may be `*`."""
    del context, parameter
    for host in value:
        if not _is_address(host) and (len(host) > _LONGEST_HOST or not _HOST.fullmatch(host)):
            raise click.BadParameter(f"{host!r} is no host name and no address")
    return value


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@click.command("keys", short_help="New keys, TLS and an admin token, as Secrets for `kubectl create`.")
@click.option("--namespace", default="kbs", show_default=True, callback=_label, help="Namespace of the broker.")
@click.option("--name", default="kbs", show_default=True, callback=_label, help="Name of the broker's StatefulSet.")
@click.option("--create-namespace", is_flag=True, help="Begin with the namespace, held to restricted Pod security.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    callback=_hosts,
    help="Further host name or address of the certificate; repeatable.",
)
@click.option("--without-tls", is_flag=True, help="No certificate: cert-manager or somebody else makes it.")
@click.option(
    "--token-lifetime",
    type=Duration(),
    default="24h",
    show_default=True,
    help="Of the admin token, such as 1h or 7d.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this new file, mode 0600.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys_command(
    namespace: str,
    name: str,
    create_namespace: bool,
    hosts: tuple[str, ...],
    without_tls: bool,
    token_lifetime: timedelta,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make new keys for a broker in a cluster, as manifests:

        kbs k8s keys --create-namespace | kubectl create -f -

    With `create`, not `apply`: keys that exist are never replaced. Whoever loses NAME-keys loses the store, so keep a
    copy: --out FILE, and create from the file.
    """
    if out is None and is_terminal():
        fail("keys are not shown on a terminal", hint="kbs k8s keys | kubectl create -f -   or: --out FILE")
        raise click.exceptions.Exit(1)
    if out is not None and not out.parent.is_dir():
        fail(f"{out.parent} is no folder; nothing was made", hint="make it, or name another file with --out")
        raise click.exceptions.Exit(1)
    if out is not None and out.is_file():
        fail(f"{out} exists; nothing was made", hint="name another file: it may hold keys that are in use")
        raise click.exceptions.Exit(1)
    wanted = Wanted(namespace, name, hosts, create_namespace, not without_tls, token_lifetime)
    manifests = key_manifests(wanted, system_clock())
    text = _text([dict(each) for each in manifests], as_json=as_json)
    if out is None:
        click_echo(text.removesuffix("\n"))
        return
    write_private(out, text.encode())
    done("made", f"{out}: {', '.join(each['metadata']['name'] for each in manifests)}")


def _text(manifests: list[dict[str, Any]], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}, indent=2) + "\n"
    text: str = yaml.dump_all(manifests, Dumper=_Dumper, explicit_start=True, sort_keys=False)
    return text


class _Dumper(yaml.SafeDumper):
    """Certificates as the lines that they are."""


def _lines(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)
