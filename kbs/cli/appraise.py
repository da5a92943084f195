"""`kbs appraise`: verify one piece of evidence here and now, without a broker and without a network.

Exits 0 for authentic evidence, whatever policy makes of it, 1 for refused evidence, 2 for wrong use. A decision can be
saved with all that it was made from, and replayed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from kbs import config
from kbs.attestation.cases import Case, DefaultPolicies, GivenEndorsements, GivenReferences, fixed_snapshot, read_case
from kbs.attestation.ear import EarSettings, ear_claims
from kbs.attestation.model import Binding, Endorsements, Evidence, Json, Verifier, VerifierOptions
from kbs.attestation.recorded import accepted, differences, items_of, refused, write_case
from kbs.attestation.service import AttestationService, Attested, VerificationRequest, guarded
from kbs.cli.appraise_inputs import Hex, TeeName, Time, body_of, collateral_of, endorsements_for, named, object_of
from kbs.cli.appraise_output import Report, show_accepted, show_refused
from kbs.cli.output import write_private
from kbs.cli.parameters import NamedJson
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid, KbsError, PeerFault
from kbs.extensions import load
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, load_token_key
from kbs.tokens.trust import DEFAULT_ISSUER

_TOKEN_LIFE: Final = timedelta(minutes=5)


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT: Final = click.Path(dir_okay=False, path_type=Path)
_ONLY_NEW: Final = (
    *("tee", "evidence", "at", "report_data", "init_data", "endorsements"),
    *("anchors", "reference_values", "options", "save"),
)


@click.command("appraise")
@click.option("--tee", type=TeeName(), help="TEE name as on the wire, e.g. snp.")
@click.option("--evidence", type=_FILE, help="Evidence JSON, or the raw report or quote.")
@click.option("--at", type=Time(), help="Verify at this RFC 3339 time. Default: now.")
@click.option("--report-data", type=Hex(), help="What the evidence must bind. Without it nothing is ever affirming.")
@click.option("--init-data", type=Hex(), help="Init-data digest that the evidence must bind.")
@click.option(
    "--endorsements",
    type=click.Path(exists=True, path_type=Path),
    help="Collateral: a bundle of `kbs endorsements export`, a JSON object as in case files, a collateral bundle of "
    "Intel's libraries, or a folder of DER or PEM files named for their member: vcek.der, crl.pem …",
)
@click.option(
    "--anchors", type=_FILE, help="JSON object of trust roots or enrolled keys, instead of the built-in ones."
)
@click.option("--reference-values", type=_FILE, help="JSON object: reference value name to value.")
@click.option("--option", "options", type=NamedJson(), multiple=True, help="Setting of the verifier; repeatable.")
@click.option("--data", type=_FOLDER, help="Data directory whose token key signs the result. Default: unsigned.")
@click.option("--save", type=_OUT, help="Record the decision, with all that it was made from, in this file.")
@click.option("--replay", type=_FILE, help="Decide again what such a file records, and compare. Takes no other inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def appraise_command(context: click.Context, /, **given: Any) -> None:
    """Verify and appraise one piece of evidence against the shipped policies. Uses no network.

    Exits 0 for authentic evidence, whatever policy makes of it, and 1 for refused evidence. With --replay it exits 0
    when the decision is the recorded one, and 1 when it is not.
    """
    replay: Path | None = given["replay"]
    if replay is None:
        case = _case(**given)
    else:
        source = click.core.ParameterSource.DEFAULT
        if also := [name for name in _ONLY_NEW if context.get_parameter_source(name) is not source]:
            raise click.UsageError(f"--replay takes everything from its file, also {', '.join(also)}")
        case = _recorded(replay)
    _decide(case, given["data"], None if replay is None else case.expect, given["save"], as_json=given["as_json"])


def _case(
    *,
    tee: Tee | None,
    evidence: Path | None,
    at: datetime | None,
    report_data: bytes | None,
    init_data: bytes | None,
    endorsements: Path | None,
    anchors: Path | None,
    reference_values: Path | None,
    options: tuple[tuple[str, Json], ...],
    save: Path | None,
    **others: Any,
) -> Case:
    """What the command line says, as a case without an expectation."""
    del others
    if tee is None or evidence is None:
        raise click.UsageError("name --tee and --evidence, or --replay")
    return Case(
        name=evidence.stem if save is None else save.stem,
        tee=tee,
        evidence=evidence.read_bytes(),
        endorsements={} if endorsements is None else collateral_of(endorsements),
        anchors=None if anchors is None else object_of(anchors),
        options=named(options),
        at=at or system_clock(),
        binding=Binding(report_data, init_data),
        expect={},
        references={} if reference_values is None else object_of(reference_values),
    )


def _recorded(path: Path) -> Case:
    try:
        return read_case(path.read_bytes())
    except KbsError as error:
        raise click.UsageError(f"{path}: {error}") from None


def _decide(
    case: Case, data: Path | None, recorded: Mapping[str, Json] | None, save: Path | None, *, as_json: bool
) -> None:
    """Decide, show, record. recorded: what to compare with; None: nothing."""
    try:
        verifier: Verifier = load("kbs.verifiers", [case.tee])[case.tee](VerifierOptions(case.options, case.anchors))
        signer = None if data is None else _signer(data, case.at)
    except ConfigInvalid as error:
        raise click.UsageError(str(error)) from None
    refusal: KbsError | None = None
    attested: Attested | None = None
    try:
        if isinstance(case.evidence, bytes):
            case = replace(case, evidence=body_of(case.evidence))
        case, found = _with_endorsements(case, verifier)
        attested = _attest(case, verifier, found)
        expect = accepted(attested)
    except PeerFault as error:  # any other fault is ours, and says nothing of the evidence
        refusal = error
        expect = refused(error)
    if save is not None:
        write_private(save, write_case(replace(case, expect=expect)))
    changed = None if recorded is None else differences(recorded, expect)
    if attested is not None:
        show_accepted(_report(case.tee, case.at, attested, signer), as_json=as_json, changed=changed)
    if refusal is not None:
        show_refused(refusal, case.tee, case.at, as_json=as_json, changed=changed)
    if changed or (changed is None and refusal is not None):
        raise click.exceptions.Exit(1)


def _with_endorsements(case: Case, verifier: Verifier) -> tuple[Case, Endorsements]:
    """What was given, and the case with no more of it than this evidence needs: a bundle may hold a whole site's.

    Raises:
        KbsError: the evidence is refused. click.UsageError: what was given beside it cannot be used.
    """
    evidence = Evidence(case.tee, case.evidence)
    found = endorsements_for(verifier, evidence, case.endorsements)
    if "items" not in case.endorsements:
        return case, found
    wanted = {need.name for need in guarded(case.tee, verifier.needs, evidence)}
    found = Endorsements({name: item for name, item in found.items.items() if name in wanted})
    return replace(case, endorsements=items_of(found)), found


def _attest(case: Case, verifier: Verifier, found: Endorsements) -> Attested:
    references = GivenReferences(fixed_snapshot(case.references))
    policies = DefaultPolicies(Shipped.load())
    engine = WasmEngine(lambda: case.at)
    service = AttestationService({case.tee: verifier}, GivenEndorsements(found), engine, policies, references)
    return service.attest([VerificationRequest(Evidence(case.tee, case.evidence), case.binding)], case.at)


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
