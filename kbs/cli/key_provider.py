"""`kbs key-provider`: what skopeo, buildah and containerd ask for layer keys, as a server and as a command."""

from __future__ import annotations

import dataclasses
import functools
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from kbs.cli.connection import Place, broker_options, next_command, place_words
from kbs.cli.guest import Guest, guest_options
from kbs.cli.image_options import KidType, image_wall
from kbs.cli.output import console, done, print_json, printable
from kbs.client.errors import ClientError, Conflict, NotFound
from kbs.images.errors import BrokerRefused, KekRefused, RequestRefused
from kbs.images.kek import check_kek, read_kek
from kbs.images.provider import KeyProvider, text_of
from kbs.images.provider_keks import Fetch, KekFolder, Keks, Registration, Store
from kbs.images.provider_messages import MAX_REQUEST, NAME
from kbs.secret import Secret

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def _provider_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a provider, as `build`: told whether it ends after one layer, it makes one."""

    @functools.wraps(command)
    @image_wall
    def run(
        *,
        name: str,
        keyid: str | None,
        keys: Path | None,
        kek_file: Path | None,
        replace_kek: bool,
        insecure_sample_kek: bool,
        attest: bool,
        place: Place,
        **given: Any,
    ) -> None:
        guest = Guest(**{each.name: given.pop(each.name) for each in dataclasses.fields(Guest) if each.name in given})

        def build(*, one_layer: bool, tell: Callable[[str], None]) -> KeyProvider:
            named = place.given or place.data is not None
            if replace_kek and not named:
                raise click.UsageError("--replace-kek is about a broker: name one with --url or --data")
            keks = Keks(
                registration=Registration(_store_at(place), place.url, replace_kek) if named else None,
                fetch=_fetch_as(guest, place) if attest else None,
                folder=None if keys is None else KekFolder(keys),
                one_layer=one_layer,
            )
            only = None if kek_file is None else read_kek(kek_file)
            return KeyProvider(keks, only, name, keyid, insecure_sample_kek, tell=tell)

        command(build=build, **given)

    options = (
        click.option("--name", default=NAME, show_default=True, help="What the ocicrypt configuration calls it."),
        click.option("--keyid", type=KidType(), help="KEK of images whose key names none: one image per process."),
        click.option("--keys", type=click.Path(file_okay=False, path_type=Path), help="Folder to keep KEKs in."),
        click.option("--kek-file", type=_FILE, help="Unwrap everything with this KEK, 32 raw bytes."),
        click.option("--replace-kek", is_flag=True, help="Store over another KEK at the broker, which is then lost."),
        click.option("--insecure-sample-kek", is_flag=True, help="Allow sample=true, whose KEK is published."),
        click.option("--attest", is_flag=True, help="Read KEKs from the broker, as an attested software guest."),
    )
    wrapped: Callable[..., None] = broker_options()(guest_options(run))
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.group("key-provider", short_help="ocicrypt's key provider, for skopeo, buildah and containerd.")
def key_provider_group() -> None:
    """Wraps the keys of image layers with KEKs, which --data or --url has stored at a broker first.

    The image builder says provider:attestation-agent:keyid=kbs:///REPOSITORY/TYPE/TAG and, joined by ::, keypath=FILE
    for a KEK of yours, algorithm=A256GCM or A256CTR.
    """


@key_provider_group.command("serve")
@click.option("--listen", default="127.0.0.1:50000", show_default=True, help="HOST:PORT, or unix:PATH.")
@click.option("--insecure-remote", is_flag=True, help="Listen where other machines reach it.")
@_provider_options
def serve_command(listen: str, insecure_remote: bool, build: Callable[..., KeyProvider], as_json: bool) -> None:
    """Answer gRPC (HTTP/2 in clear) until SIGTERM or Ctrl-C."""
    from kbs.images.provider_grpc import ProviderServer  # the command below starts sooner without grpc

    server = ProviderServer(build(one_layer=False, tell=_tell), listen, insecure_remote=insecure_remote)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    if as_json:
        print_json({"listen": server.address})
    else:
        done("listening", server.address)
    sys.stdout.flush()
    ended.wait()
    server.stop()


@key_provider_group.command("run")
@_provider_options
def run_command(build: Callable[..., KeyProvider], as_json: bool) -> None:
    """Answer one request: JSON on stdin, JSON on stdout. ocicrypt runs it once for each layer."""
    del as_json  # both ways
    stream: Any = sys.stdin.buffer
    raw = stream.read(MAX_REQUEST + 1)
    if len(raw) > MAX_REQUEST:
        raise RequestRefused(f"the request has more than {MAX_REQUEST} bytes")
    provider = build(one_layer=True, tell=lambda _: None)
    try:
        answer = provider.answer(raw)
    except OSError as err:
        raise KekRefused(text_of(err)) from None
    out: Any = sys.stdout.buffer
    out.write(answer.reveal())
    out.flush()


def _tell(text: str) -> None:
    console(stderr=True).print(printable(text), markup=False)


def _store_at(place: Place) -> Store:
    """Stores with the admin token as its file has it now: a token that was renewed there is used."""

    def store(path: str, kek: Secret, replace: bool) -> bool:
        try:
            with place.admin() as admin:
                admin.set_resource(path, kek.reveal(), expected=None if replace else 0)
        except Conflict:
            return False
        except ClientError as err:
            raise BrokerRefused(
                f"the broker did not store the KEK {path}, so nothing is wrapped: {err}",
                next_step=next_command(err, place),
            ) from None
        return True

    return store


def _fetch_as(guest: Guest, place: Place) -> Fetch:
    def fetch(kid: str) -> Secret | None:
        try:
            with guest.connect(place) as client:
                raw = client.get_resource(kid)
        except NotFound:
            return None
        except ClientError as err:
            raise BrokerRefused(
                f"the broker does not hand out {kid}: {err}", next_step=next_command(err, place)
            ) from None
        try:
            return check_kek(raw)
        except KekRefused as err:
            path = kid.removeprefix("kbs:///")
            again = f"kbs resource set {path} --file FILE {place_words(place)}".rstrip()
            raise KekRefused(f"{kid} at the broker: {err}", next_step=again) from None

    return fetch
