"""Which broker a command speaks to, and how its refusals reach people: the options that commands share.

`--data DIR` is the short form for the machine that the broker runs on: address, token and CA come from there.
"""

from __future__ import annotations

import functools
import ipaddress
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx

from kbs import config
from kbs.cli.output import fail, print_json, warn
from kbs.client.admin import AdminClient
from kbs.client.errors import (
    AdminRefused,
    AttestationRefused,
    ClientError,
    Conflict,
    NotFound,
    PolicyDenied,
    Refused,
    TokenRefused,
    TryLater,
    Unreachable,
    VersionsUnknown,
)
from kbs.errors import KbsError, ResourceNotFound

DEFAULT_URL: Final = "https://127.0.0.1:8080"
Failure: Final = (ClientError, KbsError, OSError)
"""What a command may raise; anything else is a bug and shows as one."""

_FORBIDDEN: Final = 403
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker is and what to show it.

    given: whether `--url` was. token_file: None for guests and where there is none. transport: for tests, taken from
    the context object of click.
    """

    url: str
    ca_file: Path | None
    token_file: Path | None
    data: Path | None
    given: bool
    transport: httpx.BaseTransport | None

    def admin(self) -> AdminClient:
        """An administrator's client.

        Raises:
            ClientMisconfigured: an address, token or CA file that cannot work.
        """
        return AdminClient(
            self.url, token_file=self.token_file, ca_file=self.ca_file, transport=self.transport, on_warning=warn
        )


def broker_options(
    *, guest: bool = False, hint: Callable[[Place], str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--url`, `--data`, `--ca-file`, `--token-file` (administrators) and `--json`, and a wall.

    The command receives `place` and `as_json`. Whatever `Failure` it raises becomes one message with the next
    command to run, and exit status 1.

    Args:
        guest: no token file, also not the one in the data directory.
        hint: the next command to run when something was not found, or was changed by somebody else.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(
            *,
            url: str | None,
            data: Path | None,
            ca_file: Path | None,
            as_json: bool,
            token_file: Path | None = None,
            **given: Any,
        ) -> None:
            place: Place | None = None
            try:
                place = _place(url, data, ca_file, token_file, guest=guest)
                command(place=place, as_json=as_json, **given)
            except Failure as err:
                report(err, place, as_json=as_json, hint=hint)
                raise click.exceptions.Exit(1) from None

        for option in reversed(_options(guest=guest)):
            run = option(run)
        return run

    return decorate


def walled(command: Callable[..., None]) -> Callable[..., None]:
    """The same wall for commands that work on files alone; they too take `as_json`."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except Failure as err:
            report(err, None, as_json=given["as_json"])
            raise click.exceptions.Exit(1) from None

    return run


def report(err: Exception, place: Place | None, *, as_json: bool, hint: Callable[[Place], str] | None = None) -> None:
    """Say what went wrong and what to do next; with `as_json` as one object on standard output."""
    following = None if place is None else next_command(err, place, hint)
    problem = err.problem if isinstance(err, Refused) else None
    if as_json:
        found: dict[str, Any] = {"error": _text(err), "next": following}
        if problem is not None:
            found |= {
                "status": problem.status,
                "name": problem.name,
                "detail": problem.detail,
                "reason": problem.reason,
                "decision": problem.decision,
            }
        print_json(found)
        return
    text = _text(err)
    if problem is not None and problem.reason is not None:
        text += f" [{problem.reason}]"
    fail(text, hint=following)


def next_command(err: Exception, place: Place, hint: Callable[[Place], str] | None = None) -> str | None:
    """What helps with this error, as a command or a short advice; None where nothing is known to."""
    where = place_words(place)
    if isinstance(err, Unreachable):
        return _reach(err, place)
    if hint is not None and isinstance(err, (NotFound, Conflict, ResourceNotFound)):
        return hint(place)
    if isinstance(err, VersionsUnknown):
        return "see what is there by the broker's own means; without a condition it is written over"
    if not isinstance(err, Refused):
        return None
    problem = err.problem
    if isinstance(err, AdminRefused):
        role = " --role ROLE, with a role that may do this" if problem.status == _FORBIDDEN else ""
        return f"kbs admin token --data {data_word(place.data)} --out FILE{role}; then name it with --token-file FILE"
    if isinstance(err, (PolicyDenied, AttestationRefused, TokenRefused)):
        return None if problem.decision is None else f"kbs explain {problem.decision} {where}"
    if problem.reason == "policy_compiler_missing":
        return "kbs opa install"
    if problem.reason == "tee_key_unusable":
        return "a newer guest, or compat.allow_rsa1_5 = true in the broker's settings"
    if isinstance(err, TryLater):
        return f"again in {problem.retry_after or 5} seconds; kbs status {where}"
    return None


def place_words(place: Place) -> str:
    """The options that lead to the same broker, for commands that are shown."""
    words = [] if place.data is None else [f"--data {data_word(place.data)}"]
    if place.given:
        words.insert(0, f"--url {shlex.quote(place.url)}")
    return " ".join(words)


def settings_address(data: Path) -> str:
    """The address of the broker on a data directory, as seen from its machine.

    Raises:
        ConfigInvalid: the settings do not load.
    """
    server = config.load(data).server
    listen = server.admin_listen or server.listen[0]
    host, _, port = listen.rpartition(":")
    scheme = "http" if server.insecure_http else "https"
    return f"{scheme}://{_reachable(host)}:{port}"


def _reachable(host: str) -> str:
    """A listener on every address is reached on loopback."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address}]" if address.version == 6 else str(address)


def _options(*, guest: bool) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    token = click.option("--token-file", type=_FILE, help="File with an admin token. Default: that of --data.")
    return [
        click.option("--url", help=f"The broker's address. Default: that of --data, else {DEFAULT_URL}."),
        click.option("--data", type=_FOLDER, help="Data directory of a broker on this machine."),
        *([] if guest else [token]),
        click.option("--ca-file", type=_FILE, help="PEM of the only roots to trust. Default: that of --data."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]


def place_of(url: str | None, data: Path | None, ca_file: Path | None, token_file: Path | None) -> Place:
    """An administrator's broker, from options that were given or not.

    Raises:
        ConfigInvalid: the settings of the data directory do not load.
    """
    return _place(url, data, ca_file, token_file, guest=False)


def _place(url: str | None, data: Path | None, ca_file: Path | None, token_file: Path | None, *, guest: bool) -> Place:
    given = url is not None
    if data is not None:
        url = url or settings_address(data)
        ca_file = ca_file or _if_there(data / "tls/ca.pem")
        if not guest:
            token_file = token_file or _if_there(data / "admin-token")
    transport = click.get_current_context().find_object(httpx.BaseTransport)
    return Place(url or DEFAULT_URL, ca_file, token_file, data, given, transport)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _reach(err: Unreachable, place: Place) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(err):
        return "name the roots to trust with --ca-file DATA/tls/ca.pem, or give --data"
    return f"kbs serve --data {data_word(place.data)}"


def data_word(data: Path | None) -> str:
    """A data directory as it is shown in a command."""
    return "DATA" if data is None else shlex.quote(str(data))


def _text(err: Exception) -> str:
    if isinstance(err, KbsError):
        return err.operator_detail or str(err)
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return str(err)
