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
    "init": "init:init_command",
    "serve": "serve:serve_command",
    "resource": "resource:resource_group",
    "image": "image:image_group",
    "policy": "policy:policy_group",
    "reference": "reference:reference_group",
    "initdata": "initdata:initdata_group",
    "secret": "secret:secret_group",
    "key-provider": "key_provider:key_provider_group",
    "guest": "guest:guest_command",
    "explain": "explain:explain_command",
    "audit": "audit:audit_group",
    "admin": "admin:admin_group",
    "status": "status:status_command",
    "appraise": "appraise:appraise_command",
    "endorsements": "endorsements:endorsements_group",
    "vectors": "vectors:vectors_command",
    "opa": "opa:opa_group",
}


class _Lazy(click.Group):
    """Commands by name, loaded on use: `kbs --help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"kbs.cli.{module}"), attribute)
        return command


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
