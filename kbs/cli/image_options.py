"""Options and walls that the commands of `kbs image` share: places of images, registries, progress, refusals."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import httpx
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from kbs.cli.output import console, fail, print_json
from kbs.images.errors import ImageError, LocationRefused
from kbs.images.kid import resolve_kid
from kbs.images.locations import Location, open_source, open_target, parse_location
from kbs.images.places import Advance, Source
from kbs.images.registry_address import RegistryAddress
from kbs.images.registry_client import RegistryOptions
from kbs.images.rewrite import Copy, Outcome, Written

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class LocationType(click.ParamType[Any]):
    """`oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]` or `docker://host/name[:tag|@digest]`."""

    name = "image"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        try:
            return parse_location(value)
        except ImageError as err:
            self.fail(str(err), param, ctx)


class KidType(click.ParamType[Any]):
    """The name of a KEK; completed to `kbs:///repository/type/tag`."""

    name = "kbs:///repository/type/tag"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return resolve_kid(value)
        except ImageError as err:
            self.fail(str(err), param, ctx)


PLATFORM = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[/VARIANT]",
    help="Only the image for this platform; the others of an index are left out. Repeatable. Default: all.",
)


def registry_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of registries, as `registry`."""

    @functools.wraps(command)
    def run(*, auth_file: Path | None, registry_ca_file: Path | None, insecure_http: bool, **given: Any) -> None:
        transport = click.get_current_context().find_object(httpx.BaseTransport)
        registry = RegistryOptions(auth_file, registry_ca_file, insecure_http, transport)
        command(registry=registry, **given)

    options = (
        click.option("--auth-file", type=_FILE, help="Docker's or podman's auth file, for registries."),
        click.option("--registry-ca-file", type=_FILE, help="PEM of the only roots to trust for registries."),
        click.option("--insecure-http", is_flag=True, help="Plain HTTP to registries on this machine."),
    )
    wrapped: Callable[..., None] = run
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def image_wall(command: Callable[..., None]) -> Callable[..., None]:
    """Show what images raise as one message and the next step; exit status 1. The command takes `as_json`."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except ImageError as err:
            if given["as_json"]:
                print_json({"error": str(err), "next": err.next_step})
            else:
                fail(str(err), hint=err.next_step)
            raise click.exceptions.Exit(1) from None

    return run


@contextmanager
def copying(source: Location, target: Location, registry: RegistryOptions, *, quiet: bool) -> Iterator[Copy]:
    """Both ends open, and progress on a terminal. What is not committed when this ends was never there."""
    check_plain_http(registry, source, target)
    opened = open_source(source, _for(registry, source))
    try:
        opened.root()  # before anything is made or registered
        with _terminable(), open_target(target, _for(registry, target)) as written, _bars(quiet=quiet) as bars:
            yield Copy(opened, written, bars)
    finally:
        opened.close()


def check_plain_http(registry: RegistryOptions, *locations: Location) -> None:
    """Refuse `--insecure-http` where nothing is read or written in plain HTTP: it would be believed to be in force.

    Raises:
        LocationRefused: no location is a registry on this machine.
    """
    addresses = [each for each in locations if isinstance(each, RegistryAddress)]
    if registry.insecure_http and not any(each.is_loopback for each in addresses):
        raise LocationRefused("--insecure-http: plain HTTP is for registries on this machine; others need TLS")


@contextmanager
def reading(source: Location, registry: RegistryOptions) -> Iterator[Source]:
    """A source alone."""
    check_plain_http(registry, source)
    opened = open_source(source, _for(registry, source))
    try:
        yield opened
    finally:
        opened.close()


def summary(written: Written, outcome: Outcome) -> dict[str, Any]:
    """What was done, for scripts."""
    return {
        "digest": written.descriptor.digest,
        "media_type": written.descriptor.media_type,
        "platforms": outcome.platforms,
        "layers": outcome.layers,
        "changed": outcome.changed,
        "kept": outcome.kept,
    }


def counted_layers(outcome: Outcome) -> str:
    """The same for people."""
    word = "layer" if outcome.layers == 1 else "layers"
    return f"{outcome.changed} of {outcome.layers} {word} ({', '.join(outcome.platforms)})"


class _Shown:
    """Progress of each layer as a bar."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def layer(self, label: str, size: int) -> Advance:
        task = self._bars.add_task(label, total=size)
        return lambda count: self._bars.advance(task, count)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the work like Ctrl-C does: drafts are removed and a KEK is taken back."""

    def stop(number: int, frame: object) -> None:
        del frame
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bars(*, quiet: bool) -> Iterator[_Shown]:
    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=out, disable=quiet or not out.is_terminal) as bars:
        yield _Shown(bars)


def _for(registry: RegistryOptions, location: Location) -> RegistryOptions:
    """The options for one place: plain HTTP on this machine alone."""
    loopback = isinstance(location, RegistryAddress) and location.is_loopback
    return registry if loopback else replace(registry, insecure_http=False)
