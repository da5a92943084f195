"""`kbs resource generate`, `rotate`, `escrow`, `open-escrow`: secrets that the broker makes, and sealed copies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kbs.cli.connection import Place, broker_options, walled
from kbs.cli.output import done, print_json
from kbs.client.model import VersionInfo
from kbs.errors import ConfigInvalid, ResourceNotFound
from kbs.plugins.resource.generation import ESCROW
from kbs.protocol import jwe

_MAX_COPY = 1 << 20  # octets


@click.command("generate")
@click.argument("path")
@click.option("--bytes", "size", type=click.IntRange(16, 4096), help="How many; none: as the broker's rule says.")
@click.option("--encoding", type=click.Choice(["raw", "base64", "hex"]), help="How they are written; with --bytes.")
@broker_options()
def generate_command(path: str, size: int | None, encoding: str | None, place: Place, as_json: bool) -> None:
    """Make random bytes the secret PATH, exactly once. Nobody sees them."""
    if encoding is not None and size is None:
        raise click.UsageError("--encoding goes with --bytes")
    with place.admin() as admin:
        version = admin.generate_resource(path, size=size, encoding=encoding)
    _say("generated", path, version, as_json)


@click.command("rotate")
@click.argument("path")
@click.option("--bytes", "size", type=click.IntRange(16, 4096), help="Needed if PATH was not generated before.")
@broker_options()
def rotate_command(path: str, size: int | None, place: Place, as_json: bool) -> None:
    """Make fresh random bytes the next version of the secret PATH."""
    with place.admin() as admin:
        version = admin.generate_resource(path, size=size, rotate=True)
    _say("rotated", path, version, as_json)


@click.command("escrow")
@click.argument("path")
@click.option("--version", type=click.IntRange(min=1), help="Of this version; otherwise of the current one.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File for the copy.")
@broker_options()
def escrow_command(path: str, version: int | None, out: Path, place: Place, as_json: bool) -> None:
    """Fetch the sealed copy of the secret PATH. Only the owner of the escrow key can open it."""
    with place.admin() as admin:
        found = admin.resource_versions(path)
    wanted = found.version if version is None else version
    copy = next((_copy(each) for each in found.versions if each.version == wanted), None)
    if copy is None:
        raise ResourceNotFound(f"no sealed copy of {path}, version {wanted}: kbs resource show {path}")
    _write(out, copy.encode())
    if as_json:
        print_json({"path": path, "version": wanted, "file": str(out)})
        return
    done("escrow", f"{path}, version {wanted}, sealed, to {out}")


@click.command("open-escrow")
@click.argument("file", type=click.File("rb"))
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PEM of the private key.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the secret; none: stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; needs --out.")
@walled
def open_escrow_command(file: BinaryIO, key: Path, out: Path | None, as_json: bool) -> None:
    """Open the sealed copy FILE with the escrow key. Asks no broker."""
    if as_json and out is None:
        raise click.UsageError("--json needs --out: the secret goes to stdout otherwise")
    secret = jwe.open_sealed(_private_key(key), file.read(_MAX_COPY))
    if out is None:
        sys.stdout.buffer.write(secret)
        return
    _write(out, secret)
    if as_json:
        print_json({"file": str(out), "bytes": len(secret)})
        return
    done("opened", f"{len(secret)} bytes to {out}")


def _copy(version: VersionInfo) -> str | None:
    return version.meta.get(ESCROW)


def _say(what: str, path: str, version: int, as_json: bool) -> None:
    if as_json:
        print_json({"path": path, "version": version})
        return
    done(what, f"{path}, version {version}" if version else path)


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as err:
        raise ConfigInvalid(f"{path}: {err.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{path}: expected a private key, PEM, without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigInvalid(f"{path}: expected an EC or RSA key")
    return key


def _write(path: Path, content: bytes) -> None:
    """For the owner's eyes only, and never over something else."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as err:
        raise ConfigInvalid(f"{path}: {err.strerror}") from None
