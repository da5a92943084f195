"""`kbs secret seal`: one command from a value to what goes into a Pod."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from rich.markup import escape

from kbs import strict_json
from kbs.cli.connection import Place, broker_options
from kbs.cli.output import click_echo, console, print_json, printable, warn
from kbs.cli.secret_files import FILE, is_named, kid_of, read_private
from kbs.client.admin import AdminClient
from kbs.client.errors import Conflict
from kbs.protocol.resource_uri import ResourceUri, parse_uri
from kbs.sealed import envelope, token
from kbs.sealed.errors import ValueRefused
from kbs.sealed.keys import PrivateKey, PublicKey
from kbs.sealed.manifests import pod_fragment, secret_manifest
from kbs.sealed.payload import ENVELOPE_PROVIDERS, VAULT_PROVIDERS, Payload, Vault, WrapType
from kbs.sealed.token import SealedSecret
from kbs.secret import Secret

_MAX_SETTINGS: Final = 64 << 10  # bytes
_VALUE: Final = "File with the value; - for stdin."


@dataclasses.dataclass(frozen=True, slots=True)
class _Output:
    """How a sealed secret is shown."""

    manifest: str | None
    manifest_key: str
    namespace: str | None
    pod: bool

    def check(self) -> None:
        if self.manifest is None and (self.pod or self.namespace is not None):
            raise click.UsageError("--pod and --namespace are about a Secret: name it with --manifest NAME")


def _seal_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--key", "key_file", type=FILE, required=True, help="The private JWK, of `kbs secret keygen`."),
        click.option("--kid", help="URI of its public half. Default: as the JWK names it."),
        click.option("--manifest", metavar="NAME", help="Print a Kubernetes Secret of this name."),
        click.option("--manifest-key", metavar="KEY", default="value", show_default=True, help="Its key."),
        click.option("--namespace", help="Its namespace."),
        click.option("--pod", is_flag=True, help="And, as comments, what a Pod says to use it."),
        click.option(
            "--republish", is_flag=True, help="Write the public JWK at the broker also over one that is there."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("seal", short_help="Make a sealed secret: vault (a pointer) or envelope (encrypted).")
def seal_group() -> None:
    """Make a sealed secret. With --data or --url its public key is stored at the broker too, and so is the value."""


@seal_group.command("vault")
@click.option("--resource", required=True, help="What it points to, e.g. kbs:///default/db/password.")
@click.option("--value-file", type=click.File("rb"), help=f"Store this value there. {_VALUE}")
@click.option("--provider", type=click.Choice(VAULT_PROVIDERS), default="kbs", show_default=True)
@click.option("--provider-settings", type=FILE, help="JSON object for the provider. Default: {}.")
@_seal_options
@broker_options()
def vault_command(
    resource: str,
    value_file: BinaryIO | None,
    provider: str,
    provider_settings: Path | None,
    key_file: Path,
    kid: str | None,
    republish: bool,
    place: Place,
    as_json: bool,
    **output: Any,
) -> None:
    """Seal a pointer to a value that the broker keeps."""
    shown = _Output(**output)
    shown.check()
    if value_file is not None and (not is_named(place) or provider != "kbs"):
        raise click.UsageError(
            "--value-file stores at a broker: name it with --data or --url; only for the provider kbs"
        )
    key = read_private(key_file)
    name = str(parse_uri(resource)) if provider == "kbs" else resource
    sealed, uri = _sealed(Vault(name, provider, _settings(provider_settings)), key, kid)
    documents = _documents(sealed, shown)
    value = None if value_file is None else Secret(value_file.read())
    told: dict[str, object] = {}
    if is_named(place):
        with place.admin() as admin:
            told["published"] = publish(admin, key.public, uri, replace=republish)
            if value is not None:
                _warn_of(value)
                told["version"] = admin.set_resource(str(parse_uri(name).path), value.reveal())
    _print(sealed, documents, told, as_json=as_json)


@seal_group.command("envelope")
@click.option("--value-file", type=click.File("rb"), required=True, help=_VALUE)
@click.option("--data-key-file", type=FILE, required=True, help="The data key, 32 raw bytes.")
@click.option("--encrypted-key-file", type=FILE, required=True, help="The data key as the KMS encrypted it.")
@click.option("--key-id", required=True, help="Name of the KMS key that encrypted it.")
@click.option("--provider", type=click.Choice(ENVELOPE_PROVIDERS), required=True)
@click.option("--provider-settings", type=FILE, help="JSON object for the provider. Default: {}.")
@click.option("--algorithm", type=click.Choice([each.value for each in WrapType]), default="A256GCM", show_default=True)
@_seal_options
@broker_options()
def envelope_command(
    value_file: BinaryIO,
    data_key_file: Path,
    encrypted_key_file: Path,
    key_id: str,
    provider: str,
    provider_settings: Path | None,
    algorithm: str,
    key_file: Path,
    kid: str | None,
    republish: bool,
    place: Place,
    as_json: bool,
    **output: Any,
) -> None:
    """Seal an encrypted value, which a KMS of the guest's cloud helps to open."""
    shown = _Output(**output)
    shown.check()
    key = read_private(key_file)
    payload = envelope.encrypt(
        Secret(value_file.read()),
        envelope.check_data_key(data_key_file.read_bytes()),
        encrypted_key=encrypted_key_file.read_bytes(),
        key_id=key_id,
        provider=provider,
        provider_settings=_settings(provider_settings),
        wrap_type=WrapType(algorithm),
    )
    sealed, uri = _sealed(payload, key, kid)
    documents = _documents(sealed, shown)
    told: dict[str, object] = {}
    if is_named(place):
        with place.admin() as admin:
            told["published"] = publish(admin, key.public, uri, replace=republish)
    _print(sealed, documents, told, as_json=as_json)


def publish(admin: AdminClient, key: PublicKey, kid: ResourceUri, *, replace: bool) -> bool:
    """Store a public key where guests look for it; False where something is there already, which is left alone.

    Its `kid` becomes the URI: some guests compare it with the header's.
    """
    named = dataclasses.replace(key, kid=str(kid))
    try:
        admin.set_resource(str(kid.path), named.encode(), expected=None if replace else 0)
    except Conflict:
        warn(f"{kid} is at the broker already and was left as it is; --republish (publish: --replace) writes over it")
        return False
    return True


def _sealed(payload: Payload, key: PrivateKey, kid: str | None) -> tuple[SealedSecret, ResourceUri]:
    uri = kid_of(key.public, kid)
    return token.seal(payload, key, uri), uri


def _settings(path: Path | None) -> dict[str, strict_json.Json]:
    if path is None:
        return {}
    with path.open("rb") as file:
        settings = strict_json.decode(file.read(_MAX_SETTINGS))
    if not isinstance(settings, dict):
        raise ValueRefused(f"{path}: provider settings are a JSON object")
    return settings


def _warn_of(value: Secret) -> None:
    if value.reveal().endswith(b"\n"):
        warn("the value ends with a newline, and containers will get it; printf %s writes none")
    try:
        value.reveal().decode("utf-8")
    except UnicodeDecodeError:
        warn("the value is not UTF-8: use it as a file, an environment variable would keep the sealed string")


def _documents(sealed: SealedSecret, output: _Output) -> dict[str, str]:
    if output.manifest is None:
        return {}
    found = {"manifest": secret_manifest(sealed, output.manifest, output.manifest_key, namespace=output.namespace)}
    if output.pod:
        found["pod"] = pod_fragment(output.manifest, output.manifest_key)
    return found


def _print(sealed: SealedSecret, documents: dict[str, str], told: dict[str, object], *, as_json: bool) -> None:
    requests = [str(uri) for uri in sealed.requests]
    if as_json:
        print_json({"sealed": str(sealed), "kid": sealed.kid, "requests": requests, **told, **documents})
        return
    if "manifest" in documents:
        click_echo(documents["manifest"].removesuffix("\n"))
        for line in documents.get("pod", "").splitlines():
            click_echo(line if line.startswith("#") else f"# {line}")
    else:  # without a newline where it goes to a file: in a volume it would be part of the string
        sys.stdout.write(str(sealed) + ("\n" if sys.stdout.isatty() else ""))
    both = " and ".join(printable(request) for request in requests)
    console(stderr=True).print(f"[dim]policy:[/] the resource policy must let the guest have {escape(both)}")
