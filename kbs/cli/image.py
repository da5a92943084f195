"""`kbs image`: encrypted container images, in layouts and registries: encrypt, decrypt, inspect, rekey."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.guest import Guest, guest_options
from kbs.cli.image_inspect import inspect_command
from kbs.cli.image_kek import (
    KEK,
    REGISTERED,
    REPLACE,
    ChosenKek,
    KekChoice,
    chosen_kek,
    kek_of_file,
    kek_of_guest,
)
from kbs.cli.image_options import (
    PLATFORM,
    KidType,
    LocationType,
    copying,
    counted_layers,
    image_wall,
    registry_options,
    summary,
)
from kbs.cli.output import click_echo, done, print_json, warn
from kbs.images.encrypt import Sealing, encrypt
from kbs.images.errors import ImageError
from kbs.images.kid import guest_resource
from kbs.images.locations import Location
from kbs.images.opening import KekOf, Rewrapping, decrypt, rekey
from kbs.images.packet import WrapType
from kbs.images.registry_address import RegistryAddress
from kbs.images.registry_client import RegistryOptions
from kbs.images.rewrite import Copy, Outcome, Written

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_KEK = click.option("--kek", "kid", type=KidType(), required=True, help="Name of the KEK, as guests will ask for it.")
_WRAP = click.option(
    "--insecure-a256ctr",
    "wrap_type",
    is_flag=True,
    callback=lambda _ctx, _param, asked: WrapType.A256CTR if asked else WrapType.A256GCM,
    help="Wrap with A256CTR, which authenticates nothing, for guests that know no other.",
)


def _from_to(command: Callable[..., None]) -> Callable[..., None]:
    for argument in ("target", "source"):
        command = click.argument(argument, type=LocationType())(command)
    return command


@click.group("image", short_help="Encrypted images: encrypt, decrypt, inspect, rekey.")
def image_group() -> None:
    """Encrypted container images. An IMAGE is oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or
    docker://host[:port]/name[:tag|@digest]."""


image_group.add_command(inspect_command)


@image_group.command("encrypt")
@_from_to
@_KEK
@KEK
@REPLACE
@REGISTERED
@click.option(
    "--layer",
    "layers",
    type=int,
    multiple=True,
    help="Only this layer, from 0; negative numbers count from the end. Repeatable. Default: all.",
)
@PLATFORM
@_WRAP
@registry_options
@broker_options()
@image_wall
def encrypt_command(
    source: Location,
    target: Location,
    kid: str,
    kek_file: Path | None,
    replace: bool,
    registered: bool,
    layers: tuple[int, ...],
    platforms: tuple[str, ...],
    wrap_type: WrapType,
    registry: RegistryOptions,
    place: Place,
    as_json: bool,
) -> None:
    """Encrypt SOURCE into TARGET, all layers under one KEK.

    Without --kek-file a new KEK is made and registered at the broker (--url or --data) before the image is written.
    With --kek-file and no broker named, nobody is asked.
    """
    choice = KekChoice.of(kid, kek_file, place, replace=replace, registered=registered)
    with copying(source, target, registry, quiet=as_json) as copy:
        with chosen_kek(choice) as chosen:
            sealing = Sealing(chosen.kek, kid, wrap_type, layers, platforms)
            written, outcome = encrypt(copy, sealing)
        _commit(copy, written, chosen)
    _report("encrypted", target, (written, outcome), chosen, choice, as_json=as_json)


@image_group.command("decrypt")
@_from_to
@click.option("--kek-file", type=_FILE, help="The KEK, 32 raw bytes. Default: asked for as an attested guest.")
@PLATFORM
@guest_options
@registry_options
@broker_options(guest=True)
@image_wall
def decrypt_command(
    source: Location,
    target: Location,
    kek_file: Path | None,
    platforms: tuple[str, ...],
    registry: RegistryOptions,
    place: Place,
    as_json: bool,
    **guest: Any,
) -> None:
    """Decrypt SOURCE into TARGET.

    Without --kek-file this is a software guest that attests to the broker (--url or --data) for the KEK, as `kbs guest
    get` does; it may then write what only guests should see.
    """
    with _old_keks(kek_file, Guest(**guest), place) as kek_of, copying(source, target, registry, quiet=as_json) as copy:
        written, outcome = decrypt(copy, kek_of, platforms)
        copy.target.commit(written.raw, written.descriptor)
    if as_json:
        print_json(summary(written, outcome))
        return
    _notes(outcome)
    done("decrypted", f"{counted_layers(outcome)}: {written.descriptor.digest}")


@image_group.command("rekey")
@_from_to
@_KEK
@KEK
@click.option("--old-kek-file", type=_FILE, help="The KEK until now. Default: asked for as an attested guest.")
@REPLACE
@REGISTERED
@PLATFORM
@_WRAP
@guest_options
@registry_options
@broker_options()
@image_wall
def rekey_command(
    source: Location,
    target: Location,
    kid: str,
    kek_file: Path | None,
    old_kek_file: Path | None,
    replace: bool,
    registered: bool,
    platforms: tuple[str, ...],
    wrap_type: WrapType,
    registry: RegistryOptions,
    place: Place,
    as_json: bool,
    **guest: Any,
) -> None:
    """Put the layer keys of SOURCE under another KEK, into TARGET. Layers stay as they are, byte for byte.

    Whoever had the old KEK and the old manifest knows the layer keys: encrypt the plain image anew to lock them out.
    """
    choice = KekChoice.of(kid, kek_file, place, replace=replace, registered=registered)
    with (
        _old_keks(old_kek_file, Guest(**guest), place) as kek_of,
        copying(source, target, registry, quiet=as_json) as copy,
    ):
        with chosen_kek(choice) as chosen:
            written, outcome = rekey(copy, Rewrapping(kek_of, chosen.kek, kid, wrap_type, platforms))
        _commit(copy, written, chosen)
    _report("rekeyed", target, (written, outcome), chosen, choice, as_json=as_json)


@contextmanager
def _old_keks(file: Path | None, guest: Guest, place: Place) -> Iterator[KekOf]:
    if file is not None:
        yield kek_of_file(file)
        return
    with kek_of_guest(guest, place) as kek_of:
        yield kek_of


def _commit(copy: Copy, written: Written, chosen: ChosenKek) -> None:
    """Give the image its name. From here on the KEK stays: a registry may have done what it did not confirm."""
    try:
        copy.target.commit(written.raw, written.descriptor)
    except (ImageError, OSError):
        if chosen.version is not None:
            warn(
                f"{chosen.kid} stays at the broker (version {chosen.version}): an image under it may have been written"
            )
        raise


def _report(
    what: str, target: Location, result: tuple[Written, Outcome], chosen: ChosenKek, choice: KekChoice, *, as_json: bool
) -> None:
    written, outcome = result
    if as_json:
        print_json({**summary(written, outcome), "kek": chosen.document()})
        return
    _notes(outcome)
    done(what, f"{counted_layers(outcome)}: {written.descriptor.digest}")
    if chosen.version is None:
        done("KEK", f"{chosen.kid}, from {choice.file}; no broker was asked")
        click_echo(f"next: kbs resource set {guest_resource(chosen.kid)} --file {choice.file} --data DATA")
        return
    assert choice.place is not None
    made = "made here, " if chosen.made else ""
    done("KEK", f"{chosen.kid}, {made}version {chosen.version} at the broker (read back: version and 32 bytes)")
    click_echo(f"next: kbs image inspect {_word(target)} {place_words(choice.place)}".rstrip())


def _notes(outcome: Outcome) -> None:
    for kept in outcome.kept:
        warn(f"copied as it was: {kept}")


def _word(location: Location) -> str:
    """A location as it is shown in a command."""
    return shlex.quote(f"docker://{location}" if isinstance(location, RegistryAddress) else str(location))
