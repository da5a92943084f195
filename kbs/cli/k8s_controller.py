"""`kbs k8s controller`: keeps brokers as the cluster's objects say."""

from __future__ import annotations

import logging
import platform
import secrets
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click

from kbs import __version__
from kbs.cli.parameters import Duration
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid
from kbs.k8s.connection import connect as connect_cluster
from kbs.k8s.controller.brokers import connect as connect_broker
from kbs.k8s.controller.controller import Controller, Options
from kbs.k8s.controller.health import Health, HealthServer
from kbs.web import log

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _address(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, int]:
    del context, parameter
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 1 << 16:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 0.0.0.0:8082")
    return host.strip("[]"), int(port)


@click.command("controller")
@click.option("--namespace", "namespaces", multiple=True, metavar="NS", help="Whose objects to look at; repeatable.")
@click.option("--all-namespaces", is_flag=True, help="Look at the objects of all namespaces; needs rights in all.")
@click.option("--lease-namespace", metavar="NS", help="Where the Lease is. Default: the first --namespace.")
@click.option("--kubeconfig", type=_FILE, help="How to reach the API server. Default: as a Pod does.")
@click.option("--context", help="Of the kubeconfig. Default: its current one.")
@click.option(
    "--metrics-listen",
    default="0.0.0.0:8082",
    show_default=True,
    callback=_address,
    help="Where to serve /healthz, /readyz and /metrics.",
)
@click.option(
    "--resync",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How often an object is looked at that did not change.",
)
@click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Objects at the same time.")
def controller_command(
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    lease_namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    metrics_listen: tuple[str, int],
    resync: timedelta,
    workers: int,
) -> None:
    """Run the controller: KeyBrokers, BrokerResources, BrokerPolicies, ReferenceValueSets, WorkloadProfiles.

    Belongs into the trusted cluster, beside the broker. Several may run; the one that holds the Lease kbs-controller
    acts. Ends on SIGTERM, and gives the Lease back.
    """
    if all_namespaces == bool(namespaces):
        raise click.UsageError("say --namespace NS (once or more) or --all-namespaces, one of them")
    lease_place = lease_namespace or (namespaces[0] if namespaces else None)
    if lease_place is None:
        raise click.UsageError("with --all-namespaces, say --lease-namespace NS: where the controllers' Lease is")
    health = Health(__version__)
    identity = f"{platform.node() or 'controller'}-{secrets.token_hex(4)}"
    api = connect_cluster(kubeconfig, context=context, user_agent=f"kbs-controller/{__version__}")
    log.configure()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # says of each lost connection what health says once
    controller = Controller(
        api,
        Options(
            namespaces=None if all_namespaces else tuple(dict.fromkeys(namespaces)),
            lease_namespace=lease_place,
            resync=max(1.0, resync.total_seconds()),
            workers=workers,
        ),
        identity=identity,
        clock=system_clock,
        seconds=time.monotonic,
        health=health,
        connect=connect_broker,
    )
    try:
        server = HealthServer(metrics_listen, health, controller.is_alive, controller.is_ready)
    except OSError as err:
        raise ConfigInvalid(f"--metrics-listen {metrics_listen[0]}:{metrics_listen[1]}: {err.strerror}") from None

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        controller.stop()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    server.start()
    logging.getLogger(__name__).info(
        "controller starts", extra={"members": {"identity": identity, "metrics_port": server.port}}
    )
    try:
        controller.run()
    finally:
        server.stop()
        api.close()
