"""`kbs k8s`: what runs in clusters, and what prepares manifests for them. Each command is loaded when it is used."""

from __future__ import annotations

import importlib
from typing import Final

import click

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "controller": ("k8s_controller:controller_command", "Keep brokers as the objects of the trusted cluster say."),
    "check": ("k8s_check:check_command", "Would this Pod attest, and why not."),
    "keys": ("k8s_keys:keys_command", "New keys, TLS and an admin token, as Secrets for `kubectl create`."),
    "lint": ("k8s_lint:lint_command", "Look for what is unsafe in rendered manifests."),
    "migrate": ("k8s_migrate:migrate_command", "A Trustee installation as one of ours, with a report of differences."),
    "webhook": ("k8s_webhook:webhook_command", "Wire labelled Pods, and refuse what cannot be confidential."),
    "webhook-cert": ("k8s_webhook_cert:webhook_cert_command", "A certificate for the webhook, without cert-manager."),
    "wire": ("k8s_wire:wire_command", "Everything that a namespace needs for a profile."),
}
"""Name → where the command is, below `kbs.cli`, and its short help."""


class _Lazy(click.Group):
    """Commands by name, loaded on use: the client of Kubernetes takes a second to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"kbs.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in _COMMANDS.items()])


@click.group("k8s", cls=_Lazy)
def k8s_group() -> None:
    """Kubernetes: controller, webhook, manifests."""
