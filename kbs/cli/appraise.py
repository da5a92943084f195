"""`kbs appraise`: verify one piece of evidence here and now, without a broker and without a network.

Exits 0 for authentic evidence, whatever policy makes of it, 1 for refused evidence, 2 for wrong use.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from kbs import config, strict_json
from kbs.attestation.cases import DefaultPolicies, GivenEndorsements, GivenReferences, fixed_snapshot, parse_time
from kbs.attestation.ear import EarSettings, ear_claims
from kbs.attestation.model import Binding, Evidence, Json, Verifier, VerifierOptions
from kbs.attestation.service import AttestationService, Attested, VerificationRequest, guarded
from kbs.cli.appraise_output import Report, show_accepted, show_refused
from kbs.cli.parameters import NamedJson
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid, EvidenceMalformed, KbsError, MalformedMessage, PayloadTooLarge
from kbs.extensions import load
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import TEE_ALIASES, Tee
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, load_token_key
from kbs.tokens.trust import DEFAULT_ISSUER

_LIMITS: Final = strict_json.Limits(size=8 << 20, tokens=2_000_000)
_TOKEN_LIFE: Final = timedelta(minutes=5)


class _Hex(click.ParamType[Any]):
    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            octets = bytes.fromhex(value)
        except ValueError:
            self.fail(f"{value!r} is not hex", param, ctx)
        return octets or self.fail("no octets", param, ctx)


class _Time(click.ParamType[Any]):
    name = "rfc3339"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _TeeName(click.ParamType[Any]):
    name = "tee"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tee:
        try:
            return TEE_ALIASES.get(value) or Tee(value)
        except ValueError:
            self.fail(f"{value!r} is none of {', '.join(Tee)}", param, ctx)


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("appraise")
@click.option("--tee", type=_TeeName(), required=True, help="TEE name as on the wire, e.g. snp.")
@click.option("--evidence", type=_FILE, required=True, help="Evidence JSON, or the raw report or quote.")
@click.option("--at", type=_Time(), help="Verify at this RFC 3339 time. Default: now.")
@click.option("--report-data", type=_Hex(), help="What the evidence must bind. Without it nothing is ever affirming.")
@click.option("--init-data", type=_Hex(), help="Init-data digest that the evidence must bind.")
@click.option(
    "--endorsements",
    type=click.Path(exists=True, path_type=Path),
    help="Collateral: a JSON object as in case files, or a folder of DER or PEM files named for their member: "
    "vcek.der, crl.pem …",
)
@click.option(
    "--anchors", type=_FILE, help="JSON object of trust roots or enrolled keys, instead of the built-in ones."
)
@click.option("--reference-values", type=_FILE, help="JSON object: reference value name to value.")
@click.option("--option", "options", type=NamedJson(), multiple=True, help="Setting of the verifier; repeatable.")
@click.option("--data", type=_FOLDER, help="Data directory whose token key signs the result. Default: unsigned.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def appraise_command(
    tee: Tee,
    evidence: Path,
    at: datetime | None,
    report_data: bytes | None,
    init_data: bytes | None,
    endorsements: Path | None,
    anchors: Path | None,
    reference_values: Path | None,
    options: tuple[tuple[str, Json], ...],
    data: Path | None,
    as_json: bool,
) -> None:
    """Verify and appraise one piece of evidence against the shipped policies. Uses no network."""
    moment = at or system_clock()
    try:
        verifier: Verifier = load("kbs.verifiers", [tee])[tee](
            VerifierOptions(_named(options), None if anchors is None else _object(anchors))
        )
        signer = None if data is None else _signer(data, moment)
    except ConfigInvalid as error:
        raise click.UsageError(str(error)) from None
    given = {} if endorsements is None else _given(endorsements)
    references = GivenReferences(fixed_snapshot({} if reference_values is None else _object(reference_values)))
    try:
        request = VerificationRequest(Evidence(tee, _body(evidence.read_bytes())), Binding(report_data, init_data))
        source = GivenEndorsements(guarded(tee, verifier.endorsements_from, request.evidence, given))
        engine = WasmEngine(lambda: moment)
        service = AttestationService({tee: verifier}, source, engine, DefaultPolicies(Shipped.load()), references)
        report = _report(tee, moment, service.attest([request], moment), signer)
    except KbsError as error:
        show_refused(error, tee, moment, as_json=as_json)
        raise click.exceptions.Exit(1) from None
    show_accepted(report, as_json=as_json)


def _named(options: tuple[tuple[str, Json], ...]) -> Mapping[str, Json]:
    named = dict(options)
    if len(named) != len(options):
        raise click.UsageError("an option is given twice")
    return named


def _body(raw: bytes) -> Json:
    """JSON evidence is an object; anything else is a report or quote in its raw form."""
    if not raw.lstrip().startswith(b"{"):
        return raw
    try:
        return strict_json.decode(raw, limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge) as error:
        raise EvidenceMalformed(str(error)) from None


def _object(path: Path) -> Mapping[str, Json]:
    try:
        value = strict_json.decode(path.read_bytes(), limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge) as error:
        raise click.UsageError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{path}: not a JSON object")
    return value


def _given(path: Path) -> Mapping[str, Json]:
    """Collateral by member name, binary in base64: from one JSON file, or from files that carry the name.

    The name is the last word before the suffix, so that `vcek.der` and `milan.vcek.pem` both are `vcek`.
    """
    if not path.is_dir():
        return _object(path)
    given: dict[str, Json] = {}
    for file in sorted(each for each in path.iterdir() if each.is_file()):
        name = file.stem.rpartition(".")[2].lower()
        if name in given:
            raise click.UsageError(f"{path}: more than one file for {name!r}")
        if file.stat().st_size > _LIMITS.size:
            raise click.UsageError(f"{file}: too large for collateral")
        given[name] = base64.b64encode(file.read_bytes()).decode("ascii")
    return given


@dataclass(frozen=True, slots=True)
class _Signer:
    """How results are written: unsigned by default, with a deployment's names and key when there is one."""

    settings: EarSettings
    issuer: str
    token: TokenIssuer


def _signer(data: Path, moment: datetime) -> _Signer:
    settings = config.load(data)
    name = settings.server.public_url or DEFAULT_ISSUER
    chain = settings.token.signer_chain
    key = load_token_key(data / settings.keys.token, None if chain is None else data / chain)
    return _Signer(
        EarSettings(eat_profile=settings.token.eat_profile, developer=settings.token.developer),
        name,
        TokenIssuer(KeyRing(key), IssuerSettings(name=name), lambda: moment),
    )


def _report(tee: Tee, moment: datetime, attested: Attested, signer: _Signer | None) -> Report:
    issued_at = int(moment.timestamp())
    ear = ear_claims(
        attested.result,
        EarSettings() if signer is None else signer.settings,
        issued_at=issued_at,
        expires=issued_at + int(_TOKEN_LIFE.total_seconds()),
        issuer=DEFAULT_ISSUER if signer is None else signer.issuer,
        token_id=secrets.token_hex(16),
    )
    return Report(tee, moment, attested, ear, None if signer is None else signer.token.issue(ear).text)
