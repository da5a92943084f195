"""`kbs admin`: admin tokens: made from the data directory, ended at the broker."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

import click

from kbs import config
from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings, MintedToken
from kbs.admin.authorization import BUILT_IN_ROLES, Roles
from kbs.audit.events import AdminTokenIssued
from kbs.cli.connection import Place, broker_options, walled
from kbs.cli.output import click_echo, done, print_json, write_private
from kbs.cli.parameters import Duration
from kbs.clock import system_clock
from kbs.tokens.keys import load_signing_key

_ACTOR = "data-directory"


@click.group("admin", short_help="Admin tokens: make, revoke.")
def admin_group() -> None:
    """Admin tokens. Whoever can read the data directory can make them."""


@admin_group.command("token")
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Data directory."
)
@click.option("--subject", default="admin", show_default=True, help="Whom it is for; every record names it.")
@click.option("--role", default="admin", show_default=True, help=f"One of {', '.join(BUILT_IN_ROLES)}.")
@click.option("--lifetime", type=Duration(), help="Such as 90s, 15m, 24h, 7d. Default: that of the settings.")
@click.option("--scope", "scopes", multiple=True, help="Path or pattern that the token is narrowed to; repeatable.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file, mode 0600.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def token_command(
    data: Path,
    subject: str,
    role: str,
    lifetime: timedelta | None,
    scopes: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Make an admin token with the key in the data directory, and print it. The audit log says so first."""
    token = _mint(data, subject, role, lifetime, scopes)
    found: dict[str, str] = {
        "id": token.token_id,
        "subject": token.subject,
        "role": token.role,
        "expires": token.expires.isoformat(),
    }
    if out is None:
        if as_json:
            print_json({"token": token.text, **found})
        else:
            click_echo(token.text)
        return
    write_private(out, token.text.encode() + b"\n")
    if as_json:
        print_json({"file": str(out), **found})
        return
    done("made", f"{out}: {role} {subject} until {found['expires']}, id {token.token_id}")


@admin_group.command("revoke")
@click.argument("token_id", metavar="ID")
@broker_options()
def revoke_command(token_id: str, place: Place, as_json: bool) -> None:
    """End the admin token ID before its time; every worker knows at once."""
    with place.admin() as admin:
        admin.revoke_token(token_id)
    if as_json:
        print_json({"id": token_id, "revoked": True})
        return
    done("revoked", token_id)


def _mint(data: Path, subject: str, role: str, lifetime: timedelta | None, scopes: tuple[str, ...]) -> MintedToken:
    from kbs.app import open_audit  # takes half a second, and only this command needs it

    settings = config.load(data)
    mint = AdminTokenMint(
        load_signing_key(data / settings.keys.admin),
        AdminTokenSettings(lifetime=timedelta(seconds=settings.admin.token_lifetime_seconds)),
        Roles(),
        system_clock,
    )
    token = mint.mint(subject, role, lifetime, scopes or None)
    event = AdminTokenIssued(
        decision=secrets.token_hex(16),
        actor=_ACTOR,
        subject=subject,
        role=role,
        token_id=token.token_id,
        expires=token.expires.isoformat(),
    )
    audit = open_audit(data, settings, clock=system_clock)
    try:
        audit.append([event])
    finally:
        audit.close()
    return token
