"""Plugin `nebula-ca`: certificates of a Nebula overlay network for attested guests (kbs-protocol 8.4).

    GET nebula-ca/credential?name=…&ip=…[&duration=…][&groups=…][&subnets=…]

The program `nebula-cert` makes them; keys pass through a private folder that is removed at once. What a guest asks for
in the query is its own word: the policy sees the query and decides, and only well-formed values reach the program.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kbs import config
from kbs.errors import ConfigInvalid, DependencyFault, MalformedMessage, ResourceNotFound
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginContext, PluginRequest
from kbs.secret import Secret

_WHERE: Final = "plugins.options.nebula-ca"
_GUARDS: Final[Mapping[str, Guard]] = {"GET": Guard(Access.TOKEN)}
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}")
_GROUPS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}(?:,[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}){0,31}")
_DURATION: Final = re.compile(r"(?:[0-9]{1,8}[smh]){1,3}")
_VERSION: Final = re.compile(r"Version: v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
_LEAST: Final = (1, 9, 5)
_MOST_NETWORKS: Final = 32
_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaSettings:
    """The CA that is made where there is none; as the program's own options. None: not passed on."""

    name: str = "Trustee Nebula CA plugin"
    argon_iterations: int | None = None
    argon_memory: int | None = None
    argon_parallelism: int | None = None
    curve: str | None = None
    duration: str | None = None
    groups: str | None = None
    ips: str | None = None
    out_qr: str | None = None
    subnets: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NebulaSettings:
    """Options of the plugin."""

    work_dir: Path = Path("/opt/confidential-containers/kbs/nebula-ca")
    nebula_cert_bin_path: Path = Path("nebula-cert")
    ca_config: CaSettings = CaSettings()


class NebulaCaPlugin:
    """Answers with a certificate, its key and the CA's certificate."""

    blocks = True

    def __init__(self, program: Path, work: Path) -> None:
        self._program = program
        self._work = work

    def guards(self) -> Mapping[str, Guard]:
        """GET for guests."""
        return _GUARDS

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Make one credential."""
        if request.segments != ("credential",):
            raise ResourceNotFound("nebula-ca has the resource `credential`")
        wanted = _checked(request.query)
        ca = self._work / "ca"
        with tempfile.TemporaryDirectory(prefix="credential-", dir=self._work) as folder:
            crt, key = Path(folder) / "node.crt", Path(folder) / "node.key"
            files = {"ca-crt": ca / "ca.crt", "ca-key": ca / "ca.key", "out-crt": crt, "out-key": key}
            try:
                _run(self._program, "sign", {**wanted, **{name: str(path) for name, path in files.items()}})
                made = {"node_crt": crt, "node_key": key, "ca_crt": ca / "ca.crt"}
                answer = {name: list(path.read_bytes()) for name, path in made.items()}
            except (OSError, subprocess.SubprocessError) as err:
                detail = f"nebula-cert sign: {type(err).__name__}"  # not what it printed: the guest's words are in it
                raise DependencyFault("the certificate was not made", operator_detail=detail) from None
        return PluginAnswer(Secret(json.dumps(answer, separators=(",", ":")).encode("ascii")))


def _checked(query: Mapping[str, str]) -> Mapping[str, str]:
    """The options of one certificate.

    Raises:
        MalformedMessage: another one than these, one that must be there and is not, or a value outside its grammar.
    """
    if set(query) - {"name", "ip", "duration", "groups", "subnets"} or not {"name", "ip"} <= set(query):
        raise MalformedMessage("expected name, ip and, if need be, duration, groups, subnets")
    if not _NAME.fullmatch(query["name"]):
        raise MalformedMessage("name: letters, digits, _ . : -")
    if not _are_networks(query["ip"].split(",")) or "," in query["ip"]:
        raise MalformedMessage("ip: an address and the length of its network, such as 10.1.2.3/24")
    if not _DURATION.fullmatch(query.get("duration", "1h")):
        raise MalformedMessage("duration: such as 24h, 30m or 1h30m")
    if not _GROUPS.fullmatch(query.get("groups", "x")):
        raise MalformedMessage("groups: at most 32 names with commas between them")
    if not _are_networks(query.get("subnets", "10.0.0.0/8").split(",")):
        raise MalformedMessage("subnets: at most 32 networks with commas between them")
    return query


def _are_networks(texts: Sequence[str]) -> bool:
    try:
        for text in texts:
            if "/" not in text or not text.isascii():
                return False
            ipaddress.ip_interface(text)
    except ValueError:
        return False
    return len(texts) <= _MOST_NETWORKS


def _run(program: Path, what: str, options: Mapping[str, str]) -> None:
    """Each option is one word with its value, so that no value is taken for an option."""
    words = [str(program), what, *(f"-{name}={value}" for name, value in options.items())]
    subprocess.run(words, check=True, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, env={})  # noqa: S603


def build(context: PluginContext) -> NebulaCaPlugin:
    """Entry point `kbs.plugins: nebula-ca`. Makes the CA where there is none.

    Raises:
        ConfigInvalid: no program, one that is too old, half a CA, a folder that cannot be used.
    """
    settings = config.structure(context.options, NebulaSettings, _WHERE)
    program = _program(settings.nebula_cert_bin_path)
    work = context.data / settings.work_dir
    try:
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = [(work / "ca" / name).is_file() for name in ("ca.crt", "ca.key")]
        if not any(found):
            _make_ca(program, work, settings.ca_config)
    except OSError as err:
        raise ConfigInvalid(f"settings: {_WHERE}.work_dir: {work}: {err.strerror}") from None
    if any(found) and not all(found):
        raise ConfigInvalid(f"settings: {_WHERE}.work_dir: {work}/ca has one of ca.crt and ca.key: bring the other")
    return NebulaCaPlugin(program, work)


def _program(path: Path) -> Path:
    program = shutil.which(path)
    if program is None:
        raise ConfigInvalid(
            f"settings: {_WHERE}.nebula_cert_bin_path: no program {path}: install Nebula 1.9.5 or newer"
        )
    try:
        told = subprocess.run([program, "-version"], capture_output=True, timeout=_SECONDS, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        raise ConfigInvalid(f"settings: {_WHERE}.nebula_cert_bin_path: {program} does not tell its version") from None
    version = _VERSION.match(told.stdout)
    if version is None or tuple(map(int, version.groups())) < _LEAST:
        raise ConfigInvalid(f"settings: {_WHERE}.nebula_cert_bin_path: {program}: Nebula 1.9.5 or newer is needed")
    return Path(program)


def _make_ca(program: Path, work: Path, ca: CaSettings) -> None:
    """In a folder beside, then renamed: several workers may try, and one wins."""
    values = {name: getattr(ca, name) for name in CaSettings.__dataclass_fields__}
    options = {name.replace("_", "-"): str(value) for name, value in values.items() if value is not None}
    draft = Path(tempfile.mkdtemp(prefix="ca-", dir=work))
    try:
        _run(program, "ca", {**options, "out-crt": str(draft / "ca.crt"), "out-key": str(draft / "ca.key")})
        if not (work / "ca" / "ca.key").exists():
            draft.rename(work / "ca")
    except subprocess.SubprocessError:
        raise ConfigInvalid(f"settings: {_WHERE}.ca_config: nebula-cert does not make a CA of these options") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if not (work / "ca" / "ca.key").is_file():
        raise ConfigInvalid(f"settings: {_WHERE}: no CA was made in {work}")
