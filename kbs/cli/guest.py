"""`kbs guest`: a software guest, to try a broker out: attests itself, fetches, decrypts.

Its evidence proves nothing, be it of the TEE `sample` or of another one under make-believe vendors: a broker must be
told to take it.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from kbs.cli.connection import Place, broker_options
from kbs.cli.output import click_echo, done, print_json, write_private
from kbs.cli.parameters import NamedJson
from kbs.cli.test_root import software_attester
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.errors import ClientMisconfigured
from kbs.client.guest import VERSION, Attester, GuestClient
from kbs.client.old_guests import GENERATIONS
from kbs.client.sample_attester import SampleAttester
from kbs.protocol.tee import Tee
from kbs.strict_json import Json

_REGISTER: Final = re.compile("[0-9a-f]{96}", re.ASCII)
_TEES: Final = (Tee.SAMPLE.value, *sorted(tee.value for tee in SOFTWARE_ATTESTERS))
_CLAIMS: Final = ("svn", "launch_digest", "platform_version", "debug")
_REGISTERS: Final = {Tee.SNP: ("measurement",), Tee.TDX: ("mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3")}
"""What the machines of these TEEs can be made to show by `--claim`, as 48 octets in hex."""
_FEATURES: Final = ("resource", "attestation", "all")
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT: Final = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")


@dataclass(frozen=True, slots=True)
class Guest:
    """What the options say about the guest."""

    tee: str
    test_root: Path | None
    claims: tuple[tuple[str, Json], ...]
    init_data: Path | None
    protocol: str = VERSION
    pod_token_file: Path | None = None

    def connect(self, place: Place, attester: Attester | None = None) -> GuestClient:
        """A guest with a fresh key.

        Args:
            attester: the machine, where it is there already.

        Raises:
            ClientMisconfigured: init data or an address that cannot work.
        """
        return GuestClient(
            place.url,
            ca_file=place.ca_file,
            tee=self.tee,
            attester=attester or self.attester(),
            init_data=None if self.init_data is None else _text(self.init_data),
            pod_token_file=self.pod_token_file,
            version=self.protocol,
            transport=place.transport,
        )

    def attester(self) -> Attester:
        """The machine that the options describe."""
        if self.tee == Tee.SAMPLE:
            if self.test_root is not None:
                raise click.UsageError("the sample TEE has no vendor: leave --insecure-test-root out")
            return _sample_attester(self.claims)
        shown = _registers(Tee(self.tee), self.claims)
        if self.test_root is None:
            raise click.UsageError(
                f"--tee {self.tee} needs --insecure-test-root FOLDER; a broker that trusts one: "
                f"kbs init DIRECTORY --tee {self.tee} --insecure-test-root"
            )
        machine = software_attester(self.test_root, Tee(self.tee))
        return _Showing(machine, shown) if shown else machine


@dataclass(frozen=True, slots=True)
class _Showing:
    """A machine that was started with something else: `kbs.client.guest.Attester`."""

    machine: SoftwareAttester
    registers: Mapping[str, bytes]

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        """Evidence that shows the registers. A boot log would contradict them, so there is none."""
        if isinstance(self.machine, SoftwareTdx):
            return self.machine.evidence(report_data, init_data, log=None, fields=dict(self.registers))
        assert isinstance(self.machine, SoftwareSnp)
        return self.machine.evidence(report_data, init_data, **self.registers)


def guest_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the members of `Guest` as options."""
    options = (
        click.option("--tee", type=click.Choice(_TEES), default=Tee.SAMPLE.value, show_default=True),
        click.option(
            "--insecure-test-root",
            "test_root",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of make-believe vendors, as `kbs init --insecure-test-root` makes it.",
        ),
        click.option(
            "--claim",
            "claims",
            type=NamedJson(),
            multiple=True,
            help=f"Claim another value, e.g. debug=true; one of {', '.join(_CLAIMS)}. snp: measurement; tdx: mr_td, "
            "rtmr_0 to rtmr_3. Repeatable.",
        ),
        click.option("--init-data", type=_FILE, help="Init-data document in TOML."),
        click.option(
            "--protocol",
            type=click.Choice((*GENERATIONS, VERSION)),
            default=VERSION,
            show_default=True,
            help="Be a guest of this version; 0.1.0-v0.8 and 0.1.0 (v0.9) say the same and hash differently.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("guest", short_help="A software guest: attest, get a secret, decrypt it.")
def guest_command() -> None:
    """A software guest, to try a broker out. Refusals name the decision that `kbs explain` explains."""


@guest_command.command("get")
@click.argument("path")
@guest_options
@click.option("--token-file", "passport", type=_FILE, help="File with an attestation token, in place of evidence.")
@click.option("--pod-token-file", type=_FILE, help="File with the Pod's service-account token, shown beside evidence.")
@_OUT
@broker_options(guest=True)
def get_command(
    path: str,
    tee: str,
    test_root: Path | None,
    claims: tuple[tuple[str, Json], ...],
    init_data: Path | None,
    protocol: str,
    passport: Path | None,
    pod_token_file: Path | None,
    out: Path | None,
    place: Place,
    as_json: bool,
) -> None:
    """Attest, fetch PATH (repository/type/tag or kbs:///…), decrypt it here, and write the bytes to stdout."""
    with Guest(tee, test_root, claims, init_data, protocol, pod_token_file).connect(place) as guest:
        value = guest.get_resource(path, token=None if passport is None else _text(passport).strip())
    if out is not None:
        write_private(out, value)
    if as_json:
        print_json({"path": path, "bytes": len(value), **_where(out, value)})
    elif out is None:
        stream: Any = sys.stdout.buffer
        stream.write(value)
        stream.flush()
    else:
        done("got", f"{path}: {len(value)} bytes to {out}")


@guest_command.command("token")
@guest_options
@_OUT
@broker_options(guest=True)
def token_command(
    tee: str,
    test_root: Path | None,
    claims: tuple[tuple[str, Json], ...],
    init_data: Path | None,
    protocol: str,
    out: Path | None,
    place: Place,
    as_json: bool,
) -> None:
    """Attest, and print the attestation token (a JWT)."""
    with Guest(tee, test_root, claims, init_data, protocol).connect(place) as guest:
        token = guest.attest()
    if out is not None:
        write_private(out, token.encode() + b"\n")
    if as_json:
        print_json({"file": str(out)} if out is not None else {"token": token})
    elif out is None:
        click_echo(token)
    else:
        done("got", f"a token to {out}")


def _registers(tee: Tee, claims: tuple[tuple[str, Json], ...]) -> dict[str, bytes]:
    """The claims as registers of a TEE.

    Raises:
        UsageError: a TEE or a register that cannot be chosen, or a value that is none.
    """
    known = _REGISTERS.get(tee, ())
    found = {}
    for name, value in claims:
        if name not in known or name in found:
            may = ", ".join(known) or "none"
            raise click.UsageError(f"--claim {name}: of {tee} each of these may be given once: {may}")
        if not isinstance(value, str) or not _REGISTER.fullmatch(value):
            raise click.UsageError(f"--claim {name}: 96 hex digits as a JSON string")
        found[name] = bytes.fromhex(value)
    return found


@guest_command.command("serve", short_help="The REST server inside guests, for developing applications here.")
@guest_options
@click.option(
    "--listen", default="127.0.0.1:8006", show_default=True, help="Loopback address; port 0 takes a free one."
)
@click.option(
    "--features", type=click.Choice(_FEATURES), default=_FEATURES[0], show_default=True, help="What is answered."
)
@broker_options(guest=True)
def serve_command(
    tee: str,
    test_root: Path | None,
    claims: tuple[tuple[str, Json], ...],
    init_data: Path | None,
    protocol: str,
    listen: str,
    features: str,
    place: Place,
    as_json: bool,
) -> None:
    """Answer like api-server-rest in a guest: /cdh/resource/…, /aa/token, /aa/evidence, /aa/aael, /info.

    Every resource and token is a whole attestation at the broker of --url or --data.
    """
    from kbs.cli.guest_serve import serve  # Flask takes long to load, which no other command should pay for
    from kbs.client.guest_rest import SoftwareGuest

    guest = Guest(tee, test_root, claims, init_data, protocol)
    machine = guest.attester()
    guest.connect(place, machine).close()  # so that what cannot work is told now
    serve(
        SoftwareGuest(tee, machine, lambda attester: guest.connect(place, attester)), listen, features, as_json=as_json
    )


def _sample_attester(claims: tuple[tuple[str, Json], ...]) -> SampleAttester:
    named = dict(claims)
    if len(named) != len(claims):
        raise click.UsageError("a claim is given twice")
    if unknown := named.keys() - set(_CLAIMS):
        raise click.UsageError(f"the sample TEE has no claim {', '.join(sorted(unknown))}; it has {', '.join(_CLAIMS)}")
    known: dict[str, Any] = named  # of whatever type: what the broker makes of odd ones is worth trying
    return SampleAttester(**known)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ClientMisconfigured(f"{path}: no text in UTF-8") from None


def _where(out: Path | None, value: bytes) -> dict[str, str]:
    return {"value": base64.b64encode(value).decode("ascii")} if out is None else {"file": str(out)}
