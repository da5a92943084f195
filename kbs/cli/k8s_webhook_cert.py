"""`kbs k8s webhook-cert`: the webhook's certificate where there is no cert-manager."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from kbs.cli.connection import walled
from kbs.cli.k8s_cluster import FILE, text_of
from kbs.cli.output import click_echo, done, fail, write_private
from kbs.clock import system_clock
from kbs.initdata.certificates import read
from kbs.k8s.webhook.registration import certificate_manifests

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_APPLY = "kubectl apply --server-side --field-manager=kbs-webhook-cert -f -"
# As a manager of its own: what it does not say of a registration stays as it is.


def _label(context: click.Context, parameter: click.Parameter, value: str) -> str:
    del context, parameter
    if not _LABEL.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not 1 to 63 of a-z 0-9 -, a letter or digit first and last")
    return value


@click.command("webhook-cert")
@click.option("--namespace", default="kbs-webhook", show_default=True, callback=_label, help="Of the webhook.")
@click.option("--name", default="kbs-webhook", show_default=True, callback=_label, help="Of its Service.")
@click.option("--with-ca", type=FILE, help="PEM of a CA that stays trusted: that of the certificate before.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, mode 0600.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def webhook_cert_command(namespace: str, name: str, with_ca: Path | None, out: Path | None, as_json: bool) -> None:
    """Make a CA and a certificate for the webhook: its Secret, and the caBundle of its registrations.

        kbs k8s webhook-cert | kubectl apply --server-side --field-manager=kbs-webhook-cert -f -

    The CA's key is kept nowhere: to renew, make both anew, and name the CA before with --with-ca, so that the API
    server trusts both while Pods change over.
    """
    if out is None and sys.stdout.isatty():
        fail("keys are not shown on a terminal", hint=f"kbs k8s webhook-cert | {_APPLY}")
        raise click.exceptions.Exit(1)
    further = ""
    if with_ca is not None:
        further = with_ca.read_text("utf-8", "replace")
        read(further)
    text = text_of(certificate_manifests(namespace, name, system_clock(), further), as_json=as_json)
    if out is None:
        click_echo(text.removesuffix("\n"))
    else:
        write_private(out, text.encode())
        done("made", f"{out}: Secret {name}-tls, caBundle of {name}")
