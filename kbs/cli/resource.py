"""`kbs resource`: secrets as administrators see them: written, listed, rolled back, deleted, and never read."""

from __future__ import annotations

from typing import BinaryIO

import click

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import done, print_json, print_table, to_seconds
from kbs.cli.resource_generate import escrow_command, generate_command, open_escrow_command, rotate_command
from kbs.client.model import VersionInfo


def _list_hint(place: Place) -> str:
    return f"kbs resource list {place_words(place)}".rstrip()


@click.group("resource", short_help="Secrets: set, generate, rotate, list, versions, roll back, delete.")
def resource_group() -> None:
    """Secrets that attested guests may get. Their bytes never come back to administrators."""


@resource_group.command("set")
@click.argument("path")
@click.option("--file", "file", type=click.File("rb"), required=True, help="File with the bytes; - for stdin.")
@click.option(
    "--expected", type=click.IntRange(min=0), help="Only if this version is the current one; 0: if there is none."
)
@broker_options(hint=_list_hint)
def set_command(path: str, file: BinaryIO, expected: int | None, place: Place, as_json: bool) -> None:
    """Write the secret PATH (repository/type/tag). Earlier versions are kept."""
    value = file.read()
    with place.admin() as admin:
        version = admin.set_resource(path, value, expected=expected)
    if as_json:
        print_json({"path": path, "version": version, "bytes": len(value)})
        return
    number = "" if version is None else f", version {version}"
    done("set", f"{path}{number} ({len(value)} bytes)")


@resource_group.command("list")
@click.option("--prefix", default="", help="Only paths that begin with this.")
@broker_options()
def list_command(prefix: str, place: Place, as_json: bool) -> None:
    """List secrets by path, with the current version of each."""
    with place.admin() as admin:
        found = admin.resources(prefix)
    if as_json:
        print_json([_document(each) for each in found])
        return
    print_table(("path", "version", "bytes", "written", "by"), ((each.name, *_row(each)) for each in found))


@resource_group.command("show")
@click.argument("path")
@broker_options(hint=_list_hint)
def show_command(path: str, place: Place, as_json: bool) -> None:
    """List the kept versions of the secret PATH, oldest first."""
    with place.admin() as admin:
        found = admin.resource_versions(path)
    if as_json:
        versions = [_document(each) for each in found.versions]
        print_json({"path": found.path, "version": found.version, "versions": versions})
        return
    print_table(("version", "bytes", "written", "by"), map(_row, found.versions), title=found.path)


@resource_group.command("rollback")
@click.argument("path")
@click.argument("version", type=click.IntRange(min=1))
@broker_options(hint=_list_hint)
def rollback_command(path: str, version: int, place: Place, as_json: bool) -> None:
    """Make VERSION of the secret PATH current again, as a new version."""
    with place.admin() as admin:
        now = admin.rollback_resource(path, version)
    if as_json:
        print_json({"path": path, "version": now, "from": version})
        return
    done("rolled back", f"{path} to version {version}, now version {now}")


@resource_group.command("delete")
@click.argument("path")
@click.option("--expected", type=click.IntRange(min=1), help="Only if this version is the current one.")
@broker_options(hint=_list_hint)
def delete_command(path: str, expected: int | None, place: Place, as_json: bool) -> None:
    """Delete the secret PATH with all its versions."""
    with place.admin() as admin:
        admin.delete_resource(path, expected=expected)
    if as_json:
        print_json({"path": path, "deleted": True})
        return
    done("deleted", f"{path}, all versions")


def _document(version: VersionInfo) -> dict[str, object]:
    return {**version.meta, "name": version.name, "version": version.version}


def _row(version: VersionInfo) -> tuple[object, ...]:
    meta = version.meta
    return (version.version, meta.get("size"), to_seconds(meta.get("time")), meta.get("author"))


for _command in (generate_command, rotate_command, escrow_command, open_escrow_command):
    resource_group.add_command(_command)
