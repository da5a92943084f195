"""The command line: one file per noun, imported only when its command is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from kbs import __version__
from kbs.cli.output import fail
from kbs.errors import KbsError

_COMMANDS: Final = {
    "init": ("init:init_command", "Make a data directory: settings, keys, TLS, an admin token."),
    "serve": ("serve:serve_command", "Run the broker."),
    "resource": (
        "resource:resource_group",
        "Secrets: set, generate, rotate, list, versions, roll back, delete.",
    ),
    "image": ("image:image_group", "Encrypted images: encrypt, decrypt, inspect, rekey."),
    "policy": ("policy:policy_group", "Policies: set, list, show, roll back."),
    "reference": ("reference:reference_group", "Reference values: set, register, list, show, withdraw."),
    "initdata": (
        "initdata:initdata_group",
        "Init data: render, check, diff, digest; the register of known documents.",
    ),
    "secret": ("secret:secret_group", "Sealed secrets: keygen, seal, verify, unseal, inspect."),
    "key-provider": (
        "key_provider:key_provider_group",
        "ocicrypt's key provider, for skopeo, buildah and containerd.",
    ),
    "spiffe": ("spiffe:spiffe_group", "SPIFFE identities: rotate the keys that sign them."),
    "guest": ("guest:guest_command", "A software guest: attest, get a secret, decrypt it."),
    "explain": ("explain:explain_command", "Why a decision went the way it went."),
    "audit": ("audit:audit_group", "The audit log: verify, tail, show, export."),
    "admin": ("admin:admin_group", "Admin tokens: make, revoke."),
    "storage": ("storage:storage_group", "Stores: copy one into another, make the tables of a shared database."),
    "status": ("status:status_command", "What the broker says about itself."),
    "appraise": (
        "appraise:appraise_command",
        "Verify and appraise one piece of evidence against the shipped policies.",
    ),
    "endorsements": ("endorsements:endorsements_group", "Vendor collateral: list, prefetch, export, import."),
    "vectors": ("vectors:vectors_command", "Run every case file of FOLDER, each by its own `tee` member."),
    "k8s": ("k8s:k8s_group", "Kubernetes: controller, webhook, manifests."),
    "opa": ("opa:opa_group", "Get opa, which compiles your own policies."),
}
"""Name → where the command is, and its short help, which is here so that nothing is imported to show it."""


class _Lazy(click.Group):
    """Commands by name, loaded on use: `kbs --help` imports none of them."""

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


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kbs")
def kbs() -> None:
    """Key Broker Service for Confidential Containers."""


def main(arguments: list[str] | None = None) -> Any:
    """Entry point. Errors of ours become one line on stderr and exit status 1; wrong use is 2."""
    try:
        return kbs.main(args=arguments, prog_name="kbs")
    except KbsError as err:
        fail(err)
        sys.exit(1)
