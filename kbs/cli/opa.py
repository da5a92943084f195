"""`kbs opa`: get the program that compiles policies."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import click

from kbs.cli.connection import walled
from kbs.cli.output import click_echo, done, print_json
from kbs.policy.install import OPA_VERSION, install


@click.group("opa", short_help="Get opa, which compiles your own policies.")
def opa_group() -> None:
    """Own policies are compiled with opa; the shipped ones need none."""


@opa_group.command("install")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to. Default: beside this program, where the broker looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def install_command(directory: Path | None, as_json: bool) -> None:
    """Build opa from its pinned source. Takes minutes and a network."""
    target = directory or Path(sysconfig.get_path("scripts"))
    # An operator's action: proxies and mirrors of this shell are meant for it.
    program = install(target, _silent if as_json else click_echo, os.environ)  # noqa: TID251
    if as_json:
        print_json({"opa": str(program), "version": OPA_VERSION})
        return
    done("next:", f'if it is not on the search path, set [policy] opa = "{program}" in kbs.toml')


def _silent(_: str) -> None:
    """JSON alone goes to standard output."""
