"""`kbs policy shipped`: the policies that come with the package, for `--shipped NAME`."""

from __future__ import annotations

import click

from kbs.cli.output import print_json, print_table
from kbs.policy.shipped import Shipped


@click.command("shipped")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def shipped_command(as_json: bool) -> None:
    """List the policies that come with kbs: name, digest of the text, and what it says of itself."""
    shipped = Shipped.load()
    found = [(name, shipped.policy(name)) for name in shipped.names()]
    rows = [(name, policy.digest, _title(policy.text)) for name, policy in found]
    if as_json:
        print_json([{"name": name, "digest": digest, "title": title} for name, digest, title in rows])
        return
    print_table(("name", "sha256", "title"), ((name, digest[:16], title) for name, digest, title in rows))


def _title(text: str) -> str:
    """The first line of the comment that every shipped policy begins with, without the role it plays."""
    line = text.partition("\n")[0].removeprefix("#").strip()
    for role in ("Appraisal Policy for Evidence", "Appraisal Policy for Attestation Results"):
        line = line.removeprefix(role)
    return line.removeprefix(":").removeprefix(",").strip()
