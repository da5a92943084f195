"""Where a command gets the text of a policy from: a file, or by name from those that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final

import click

from kbs.policy.engine import PolicyKind
from kbs.policy.shipped import Shipped

KIND: Final = click.Choice([kind.value for kind in PolicyKind])


def text_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--file`, `--shipped`, `--reason` and `--expected`."""
    options = (
        click.option("--file", "file", type=click.File("rb"), help="File with Rego v1; - for stdin."),
        click.option(
            "--shipped",
            "--well-known",
            "shipped",
            metavar="NAME",
            help="A text that comes with kbs. Wrong names list all.",
        ),
        click.option("--reason", help="Why; kept in the history."),
        click.option("--expected", type=click.IntRange(min=0), help="Only if this version is the active one."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def chosen(kind: PolicyKind, file: BinaryIO | None, shipped: str | None) -> tuple[bytes, str]:
    """The text and what to call it."""
    if file is not None and shipped is None:
        return file.read(), getattr(file, "name", "<stdin>")
    if file is not None or shipped is None:
        raise click.UsageError("give either --file or --shipped")
    prefix = f"{kind.value}/"
    known = Shipped.load()
    name = prefix + shipped.removeprefix(prefix)
    if name not in known.names():
        names = ", ".join(each.removeprefix(prefix) for each in known.names() if each.startswith(prefix))
        raise click.UsageError(f"--shipped is one of: {names}")
    return known.policy(name).text.encode(), f"shipped {name}"
