"""`kbs secret`: sealed secrets, from the key that signs them to the bytes that a container gets."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any, Final

import click

from kbs import strict_json
from kbs.cli.connection import Place, broker_options, walled
from kbs.cli.guest import Guest, guest_options
from kbs.cli.output import done, print_json, print_table, warn, write_private
from kbs.cli.secret_files import FILE, is_named, kid_of, read_public, read_sealed, write_pair
from kbs.cli.secret_seal import publish, seal_group
from kbs.client.guest import GuestClient
from kbs.protocol.resource_uri import parse_uri
from kbs.sealed import envelope, keys, token
from kbs.sealed.errors import ValueRefused
from kbs.sealed.payload import Envelope, Vault
from kbs.sealed.token import SealedSecret
from kbs.secret import Secret

_JWK: Final = click.option("--jwk", type=FILE, help="The public key. Default: the broker's, read as an attested guest.")


@click.group("secret", short_help="Sealed secrets: keygen, seal, verify, unseal, inspect.")
def secret_group() -> None:
    """Signed strings in Pods that a guest exchanges for the secrets they point to or hold."""


secret_group.add_command(seal_group)


@secret_group.command("keygen")
@click.argument("kid")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder for the two files.",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def keygen_command(kid: str, out: Path, as_json: bool) -> None:
    """Make a signing key. KID: where guests will find its public half, e.g. kbs:///default/sealed-secret-key/team-a."""
    uri = parse_uri(kid)
    key = keys.generate(uri)
    private, public = write_pair(out, key, uri.path.tag)
    if as_json:
        print_json({"kid": str(uri), "private": str(private), "public": str(public)})
        return
    done("made", f"{private} (keep it) and {public}; next: kbs secret publish {public} --data DATA")


@secret_group.command("publish")
@click.argument("file", type=FILE)
@click.option("--kid", help="Where to, as a URI. Default: the key's own kid.")
@click.option("--replace", is_flag=True, help="Also over a key that is there: what it signed will not verify any more.")
@broker_options()
def publish_command(file: Path, kid: str | None, replace: bool, place: Place, as_json: bool) -> None:
    """Store the public JWK in FILE at the broker, where guests look for it. A private one is refused."""
    key = read_public(file)
    uri = kid_of(key, kid)
    with place.admin() as admin:
        published = publish(admin, key, uri, replace=replace)
    if as_json:
        print_json({"kid": str(uri), "published": published})
    elif published:
        done("published", str(uri))
    if not published:
        raise click.exceptions.Exit(1)


@secret_group.command("verify")
@click.argument("sealed")
@_JWK
@guest_options
@broker_options(guest=True)
def verify_command(sealed: str, jwk: Path | None, place: Place, as_json: bool, **guest: Any) -> None:
    """Check the signature of SEALED (- for stdin), with a JWK or as an attested guest with the broker's."""
    found = read_sealed(sealed)
    if jwk is not None:
        token.verify(found, read_public(jwk))
    elif is_named(place):
        with Guest(**guest).connect(place) as client:
            _verify_with(client, found)
    else:
        raise click.UsageError("name the public key with --jwk FILE, or a broker with --data or --url")
    if as_json:
        print_json({"verified": True, "kid": found.kid, "requests": [str(uri) for uri in found.requests]})
        return
    done("verified", f"signed with the key {found.kid}; a guest asks for {' and '.join(map(str, found.requests))}")


@secret_group.command("unseal")
@click.argument("sealed")
@click.option(
    "--secret-file",
    type=FILE,
    help="What else a guest would fetch: the value of a vault secret, the data key (32 raw bytes) of an envelope.",
)
@_JWK
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@guest_options
@broker_options(guest=True)
def unseal_command(
    sealed: str,
    secret_file: Path | None,
    jwk: Path | None,
    out: Path | None,
    place: Place,
    as_json: bool,
    **guest: Any,
) -> None:
    """Write the bytes that a container would get for SEALED (- for stdin) to stdout.

    With --data or --url as an attested guest would get them: the key, the signature, the value. With --secret-file
    alone nobody is asked, and the signature is only checked with --jwk.
    """
    found = read_sealed(sealed)
    if secret_file is None and not is_named(place):
        raise click.UsageError("say where the value is: --secret-file FILE, or a broker with --data or --url")
    verified = True
    if jwk is not None:
        token.verify(found, read_public(jwk))
    if is_named(place):
        with Guest(**guest).connect(place) as client:
            if jwk is None:
                _verify_with(client, found)
            value = _value(found, secret_file, client)
    else:
        verified = jwk is not None
        value = _value(found, secret_file, None)
    if not verified:
        warn("the signature was not checked; --jwk FILE does, with the public key")
    _write(value, out, verified=verified, as_json=as_json)


@secret_group.command("inspect")
@click.argument("sealed")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@walled
def inspect_command(sealed: str, as_json: bool) -> None:
    """Show what SEALED (- for stdin) says and asks for. Its signature is not checked."""
    found = read_sealed(sealed)
    document = _document(found)
    if as_json:
        print_json(document)
        return
    rows = [(name, _cell(value)) for name, value in document.items() if name != "requests"]
    rows += [(f"request {number}", str(uri)) for number, uri in enumerate(found.requests, 1)]
    print_table(("member", "value"), rows)


def _verify_with(client: GuestClient, sealed: SealedSecret) -> None:
    if sealed.key is None:
        raise ValueRefused(f"its kid is a file of the guest image, below {token.KEY_FOLDER}: give it with --jwk FILE")
    token.verify(sealed, keys.read_public(client.get_resource(str(sealed.key))))


def _value(sealed: SealedSecret, file: Path | None, client: GuestClient | None) -> Secret:
    payload = sealed.payload
    if isinstance(payload, Envelope):
        if file is None:
            raise ValueRefused(
                f"the data key of an envelope comes from the KMS of {payload.provider}, which is not asked from here: "
                "give it with --secret-file FILE"
            )
        return envelope.decrypt(payload, envelope.check_data_key(file.read_bytes()))
    if file is not None:
        return Secret(file.read_bytes())
    if payload.uri is None or client is None:
        raise ValueRefused(f"its value is kept by the provider {payload.provider}: give it with --secret-file FILE")
    return Secret(client.get_resource(str(payload.uri)))


def _write(value: Secret, out: Path | None, *, verified: bool, as_json: bool) -> None:
    if out is not None:
        write_private(out, value.reveal())
    if as_json:
        where = {"file": str(out)} if out else {"value": base64.b64encode(value.reveal()).decode("ascii")}
        print_json({"bytes": len(value), "verified": verified, **where})
    elif out is None:
        stream: Any = sys.stdout.buffer
        stream.write(value.reveal())
        stream.flush()
    else:
        done("unsealed", f"{len(value)} bytes to {out}")


def _document(sealed: SealedSecret) -> dict[str, object]:
    payload = sealed.payload
    if isinstance(payload, Vault):
        said: dict[str, object] = {"type": "vault", "name": payload.name}
    else:
        said = {
            "type": "envelope",
            "key_id": payload.key_id,
            "wrap_type": payload.wrap_type.value,
            "encrypted_key_bytes": len(payload.encrypted_key),
            "encrypted_data_bytes": len(payload.encrypted_data),
        }
    return {
        "alg": keys.ALGORITHM,
        "kid": sealed.kid,
        "version": "0.1.0",
        **said,
        "provider": payload.provider,
        "provider_settings": dict(payload.provider_settings),
        "annotations": dict(payload.annotations),
        "requests": [str(uri) for uri in sealed.requests],
        "signature_checked": False,
    }


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return strict_json.encode(value).decode()
    return "no" if value is False else str(value)
