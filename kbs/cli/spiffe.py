"""`kbs spiffe`: the keys that sign SPIFFE identities."""

from __future__ import annotations

from typing import Any

import click

from kbs.cli.connection import Place, broker_options
from kbs.cli.output import done, print_json, print_table, to_seconds, warn
from kbs.client.errors import UnexpectedAnswer


@click.group("spiffe", short_help="SPIFFE identities: rotate the keys that sign them.")
def spiffe_group() -> None:
    """The trust domain of the plugin spiffe. Its bundle is public: /.well-known/spiffe-bundle."""


@spiffe_group.command("rotate")
@click.option(
    "--at-once", is_flag=True, help="A key is lost: the new ones sign now, and the old ones leave the bundle now."
)
@broker_options()
def rotate_command(at_once: bool, place: Place, as_json: bool) -> None:
    """Make the next CA and the next JWT key.

    They are in the bundle at once, and sign when everybody had time to fetch it. The old ones stay in the bundle until
    all that they signed has ended. Nothing has to be restarted.
    """
    with place.admin() as admin:
        found = admin.members("PUT", "spiffe/authority", {"rotate": "at-once" if at_once else "with-notice"})
    if as_json:
        print_json(found)
        return
    generations: Any = found.get("generations")
    if not isinstance(generations, list) or not generations or not all(isinstance(each, dict) for each in generations):
        raise UnexpectedAnswer("the answer names no generations of keys")
    print_table(
        ("generation", "state", "signs from", "verifies until", "CA (SHA-256)", "JWT key"),
        [
            (
                each.get("generation"),
                each.get("state"),
                to_seconds(each.get("signs_from")),
                to_seconds(each.get("verifies_until")) or "the next rotation",
                str(each.get("ca_sha256"))[:16],
                str(each.get("jwt_kid"))[:16],
            )
            for each in generations
        ],
    )
    new = generations[-1]
    done("rotated", f"generation {new.get('generation')} signs from {to_seconds(new.get('signs_from'))} on")
    if at_once:
        warn("identities that were issued before fail where the bundle has been fetched again: guests ask for new ones")
