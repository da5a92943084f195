"""`rvps keygen | sign | sign-approval | sign-revocation | attach`: signed messages from files. Nothing is sent."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import click

from rvps import messages, signing, value_set
from rvps.cli.compute.output import write_whole
from rvps.cli.connection import Failure, shown
from rvps.clock import system_clock
from rvps.errors import StatementUnacceptable
from rvps.intake import dsse, sigstore
from rvps.intake.model import MAX_MESSAGE
from rvps.strict_json import NotStrictJson, decode

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_MAX_KEY: Final = 64 << 10  # bytes
_DIGEST: Final = 64  # hex digits
_DEFAULT_DAYS: Final = 180


def signer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that signs."""
    options = (
        click.option("--key", "key_file", type=_FILE, required=True, help="Private key: PEM, P-256, P-384 or Ed25519."),
        click.option("--password-file", type=_FILE, help="First line opens the key; without it you are asked."),
        click.option("-o", "--out", type=_FILE, help="Write the message here; else it goes to standard output."),
        click.option("--json", "as_json", is_flag=True, help="Print what was signed as JSON; needs -o."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("file", type=_FILE)
@click.option("--algorithm", type=click.Choice(["p256", "p384", "ed25519"]), default="p256", show_default=True)
@click.option("--password-file", type=_FILE, help="Encrypt the key with the first line of this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def keygen(file: Path, algorithm: str, password_file: Path | None, as_json: bool) -> None:
    """Make a signing key: the private half in FILE, readable by you alone, the public half in FILE.pub."""
    password = None if password_file is None else _password(password_file)
    key = signing.new_key(cast(signing.Algorithm, algorithm))
    public = file.with_name(file.name + ".pub")
    if public.exists():
        raise Failure(f"{public} exists", "name another file; no key is overwritten")
    try:
        with open(file, "xb", opener=_private) as stream:
            stream.write(key.private_pem(password))
    except FileExistsError as err:
        raise Failure(f"{file} exists", "name another file; no key is overwritten") from err
    except OSError as err:
        raise Failure(
            f"{file}: cannot be written ({err.strerror})", "name a file in a directory you may write"
        ) from err
    write_whole(public, key.public_pem)
    if as_json:
        click.echo(json.dumps({"key": str(file), "public": str(public), "id": key.id}))
        return
    show_facts([("private key", str(file)), ("public key", str(public)), ("key id", key.id)])
    click.echo(f'Next: put the public key into publishers.toml: keys = ["{shown(public.name)}"]')


@click.command()
@click.argument("file", type=_FILE, metavar="VALUESET")
@click.option("--serial", type=click.IntRange(1), required=True, help="Higher than that of the release before.")
@click.option("--days", type=click.IntRange(1, 3660), help=f"How long the values are valid; default {_DEFAULT_DAYS}.")
@click.option("--expires", metavar="TIME", help="Or until when: YYYY-MM-DDTHH:MM:SSZ.")
@click.option("--not-before", metavar="TIME", help="From when on; default from arrival on.")
@click.option("--together", is_flag=True, help="The values match only as a set.")
@click.option(
    "--value", "more", multiple=True, metavar="NAME=JSON", help="A value beside those of the set; repeatable."
)
@click.option("--known-bad", multiple=True, metavar="NAME=JSON", help="A value never to accept; may be repeated.")
@signer_options
def sign(
    file: Path,
    serial: int,
    days: int | None,
    expires: str | None,
    not_before: str | None,
    together: bool,
    more: tuple[str, ...],
    known_bad: tuple[str, ...],
    key_file: Path,
    password_file: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Sign a value set, as `rvps compute` writes it, and make the message that `rvps publish` sends."""
    _check_outputs(out, as_json)
    now = system_clock()
    if expires is not None and days is not None:
        raise Failure("--days and --expires both say when it ends", "give one of them")
    values = _value_set(file, together, more, known_bad)
    try:
        until = now + timedelta(days=days or _DEFAULT_DAYS) if expires is None else _moment(expires, "--expires")
        if until <= now:
            raise StatementUnacceptable("--expires has passed")
        since = None if not_before is None else _moment(not_before, "--not-before")
        statement = signing.values_statement(values, serial=serial, expires=until, not_before=since)
    except StatementUnacceptable as err:
        raise Failure(str(err), "mend the options; see `rvps sign --help`") from err
    told: dict[str, Any] = {
        "series": values.series,
        "serial": serial,
        "values": len(values.values),
        "known_bad": sum(len(bad) for bad in values.known_bad.values()),
        "artifacts": len(values.artifacts),
        "expires": messages.write_time(until),
    }
    _deliver(statement, key_from(key_file, password_file), out, as_json, told)


@click.command()
@click.argument("statement", metavar="MESSAGE|DIGEST")
@click.option("--serial", type=click.IntRange(1), help="Consent to the statement only if it has this serial.")
@signer_options
def sign_approval(
    statement: str, serial: int | None, key_file: Path, password_file: Path | None, out: Path | None, as_json: bool
) -> None:
    """Consent to a statement: the message that states it, or its digest of 64 hex digits."""
    _check_outputs(out, as_json)
    digest = statement_digest(statement)
    content = signing.approval_statement(digest, serial)
    _deliver(content, key_from(key_file, password_file), out, as_json, {"approves": digest})


@click.command()
@click.argument("statement", metavar="MESSAGE|DIGEST")
@click.option("--reason", required=True, help="One line for those who ask why.")
@signer_options
def sign_revocation(
    statement: str, reason: str, key_file: Path, password_file: Path | None, out: Path | None, as_json: bool
) -> None:
    """Make a statement void for ever: the message that states it, or its digest of 64 hex digits."""
    _check_outputs(out, as_json)
    digest = statement_digest(statement)
    try:
        content = signing.revocation_statement(digest, reason)
    except StatementUnacceptable as err:
        raise Failure(str(err), "give --reason one short line") from err
    _deliver(content, key_from(key_file, password_file), out, as_json, {"revokes": digest, "reason": reason})


@click.command()
@click.argument("attestation", type=_FILE)
@click.option("--artifact", type=_FILE, help="The file of values that the attestation is about.")
@click.option("-o", "--out", type=_FILE, help="Write the message here; else it goes to standard output.")
def attach(attestation: Path, artifact: Path | None, out: Path | None) -> None:
    """Make a message of a Sigstore bundle or DSSE envelope that cosign or GitHub made. Signs nothing."""
    document = _json(attestation)
    lines = document if isinstance(document, dict) else {}
    kind = sigstore.KIND if "verificationMaterial" in lines else dsse.KIND
    if kind == dsse.KIND and "signatures" not in lines:
        raise Failure(f"{attestation}: neither a Sigstore bundle nor a DSSE envelope", "name the bundle's JSON file")
    content = None if artifact is None else _contents(artifact, MAX_MESSAGE)
    _write(signing.message(lines, kind, content), out)


def payload_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """A message file and its payload.

    Raises:
        Failure: not a message.
    """
    document = _json(path)
    try:
        if not isinstance(document, dict):
            raise StatementUnacceptable("not a JSON object")
        messages.check_signed(document)
        return document, messages.read_payload(document)
    except StatementUnacceptable as err:
        raise Failure(f"{path}: {err}", "name a message that `rvps sign` or `rvps attach` made") from err


def statement_digest(statement: str) -> str:
    """The digest by which approvals name a statement, of its message or given as it is.

    Raises:
        Failure: neither a message nor a digest.
    """
    if len(statement) == _DIGEST and not set(statement) - set("0123456789abcdef"):
        return statement
    _, payload = payload_of(Path(statement))
    try:
        document, _ = dsse.unwrap(payload)
        envelope = document.get("dsseEnvelope", document)
        return signing.digest_of(dsse.read_envelope(envelope if isinstance(envelope, dict) else {}).payload)
    except StatementUnacceptable as err:
        raise Failure(f"{statement}: {err}", "name the message of the statement, or its digest") from err


def _value_set(path: Path, together: bool, more: tuple[str, ...], known_bad: tuple[str, ...]) -> value_set.ValueSet:
    try:
        found = value_set.read(_contents(path, value_set.MAX_DOCUMENT))
        bad = {name: list(values) for name, values in found.known_bad.items()}
        for text in known_bad:
            name, value = _named(text, "--known-bad")
            bad.setdefault(name, []).append(value)
        values = dict(found.values)
        for text in more:
            name, value = _named(text, "--value")
            if name in values:
                raise StatementUnacceptable(f"--value: the set states {name!r} already")
            values[name] = value
        return value_set.ValueSet(found.series, values, found.artifacts, found.tee, found.together or together, bad)
    except StatementUnacceptable as err:
        raise Failure(f"{path}: {err}", "make a value set with `rvps compute … -o FILE`") from err


def _named(text: str, option: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name, decode(value.encode(), max_bytes=value_set.MAX_DOCUMENT)
    except (NotStrictJson, UnicodeEncodeError) as err:
        raise Failure(f"{option}: {err}", "give NAME=JSON, such as name='\"ab12\"'") from err
    raise Failure(f"{option} is NAME=JSON", "give NAME=JSON, such as name='\"ab12\"'")


def _deliver(statement: bytes, key: signing.SigningKey, out: Path | None, as_json: bool, told: dict[str, Any]) -> None:
    _write(signing.message(signing.sign(statement, key)), out)
    told = {"statement": signing.digest_of(statement), "signer": key.id, **told}
    if as_json:
        click.echo(json.dumps(told))
    elif out is not None:
        show_facts([(name.replace("_", " "), str(value)) for name, value in told.items()])
        click.echo(f"Written to {shown(str(out))}. Next: rvps publish {shown(str(out))}")


def _write(message: bytes, out: Path | None) -> None:
    if out is None:
        click.echo(message)
    else:
        write_whole(out, message + b"\n")


def _check_outputs(out: Path | None, as_json: bool) -> None:
    if as_json and out is None:
        raise Failure("--json and the message would both go to standard output", "add -o FILE")


def key_from(path: Path, password_file: Path | None) -> signing.SigningKey:
    """The signing key in a file; asks for its password at a terminal.

    Raises:
        Failure: no key, or a password that does not open it.
    """
    pem = _contents(path, _MAX_KEY)
    password = None if password_file is None else _password(password_file)
    try:
        try:
            return signing.load_key(pem, password)
        except signing.PasswordNeeded:
            if not sys.stdin.isatty():
                raise
            asked: str = click.prompt(f"Password of {shown(str(path))}", hide_input=True, err=True)
            return signing.load_key(pem, asked.encode())
    except signing.PasswordNeeded as err:
        raise Failure(f"{path}: {err}", "name a file that holds it with --password-file") from err
    except signing.KeyUnusable as err:
        raise Failure(f"{path}: {err}", "make a key with `rvps keygen FILE`") from err


def _password(path: Path) -> bytes:
    line = _contents(path, _MAX_KEY).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise Failure(f"{path}: its first line is empty", "put the password into the first line")
    return line


def _moment(text: str, option: str) -> datetime:
    return messages.read_time(text, option)


def _json(path: Path) -> Any:
    limit = 3 * MAX_MESSAGE
    try:
        return decode(_contents(path, limit), max_bytes=limit)
    except NotStrictJson as err:
        raise Failure(f"{path}: {err}", "name a JSON file") from err


def _contents(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(limit + 1)
    except OSError as err:
        raise Failure(f"{path}: {err.strerror}", "name a file that you may read") from err
    if len(found) > limit:
        raise Failure(f"{path}: more than {limit} bytes", "name another file")
    return found


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def show_facts(rows: list[tuple[str, str]]) -> None:
    """Names and values under each other; values are never cut, because people copy key ids and digests."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {shown(value)}")
