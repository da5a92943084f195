"""`kbs k8s webhook`: the admission webhook of a workload cluster."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from kbs.cli.parameters import Duration
from kbs.k8s.webhook.server import WebhookSettings, address, serve

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del context, parameter
    try:
        if value is not None and not 0 < address(value)[1] < 1 << 16:
            raise ValueError("no port")
    except ValueError:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 0.0.0.0:8443") from None
    return value


@click.command("webhook")
@click.option("--listen", default="0.0.0.0:8443", show_default=True, callback=_address, help="Where to listen, TLS.")
@click.option("--metrics-listen", callback=_address, help="Where to serve metrics, without TLS. Default: nowhere.")
@click.option("--tls-cert", type=_FILE, required=True, help="PEM, leaf first. Read again when it changes.")
@click.option("--tls-key", type=_FILE, required=True, help="PEM, not encrypted.")
@click.option("--kubeconfig", type=_FILE, help="How to reach the API server. Default: as a Pod does.")
@click.option(
    "--max-age",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How long to go on with known profiles while the API server does not answer.",
)
def webhook_command(
    listen: str,
    metrics_listen: str | None,
    tls_cert: Path,
    tls_key: Path,
    kubeconfig: Path | None,
    max_age: timedelta,
) -> None:
    """Wire labelled Pods, and refuse those that cannot be confidential.

    Answers the API server of a workload cluster. Needs `list` and `watch` of workloadprofiles, and nothing else.
    """
    serve(
        WebhookSettings(
            listen=listen,
            metrics_listen=metrics_listen,
            certificate=tls_cert,
            key=tls_key,
            kubeconfig=kubeconfig,
            max_age=max_age,
        )
    )
