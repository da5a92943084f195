"""`rvps serve`: one process that answers gRPC and, if asked to, REST over one data directory."""

from __future__ import annotations

import ipaddress
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rvps.client import embedded
from rvps.clock import Clock
from rvps.errors import ProviderUnavailable, SettingsUnacceptable
from rvps.expiry import ExpiryWatch
from rvps.publishers.watch import PublishersOnDisk
from rvps.server.asgi import Application, HttpServer, bind
from rvps.server.directory import Directory, open_directory, tls_files
from rvps.server.grpc_api import GrpcServer
from rvps.server.metrics import Metrics
from rvps.server.reception import Reception
from rvps.server.sqlite import Conflict, SqliteStore, Unavailable
from rvps.server.web import Web

_LOG = logging.getLogger("rvps")
_GRACE_SECONDS: Final = 10.0
_LOOK_EVERY: Final = 1.0  # seconds between two looks at the store
_WARN_EVERY: Final = 3600  # such looks between two warnings
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    listen, rest_listen: HOST:PORT. tls: certificate and key instead of the ones made at the first start.
    names: further host names for the ones made.
    """

    data: Path
    listen: str
    rest_listen: str | None = None
    insecure_unsigned: bool = False
    insecure_http: bool = False
    tls: tuple[Path, Path] | None = None
    names: tuple[str, ...] = ()

    def switches(self) -> tuple[str, ...]:
        """Unsafe options that are on."""
        found = {"--insecure-unsigned": self.insecure_unsigned, "--insecure-http": self.insecure_http}
        return tuple(name for name, on in found.items() if on)


class Service:
    """The running parts of one service. Made, started and stopped by one thread."""

    def __init__(self, options: Options, clock: Clock) -> None:
        """
        Raises:
            SettingsUnacceptable: an address, a file or an option that cannot be used; nothing listens then.
        """
        self._options = options
        self._clock = clock
        self._end = threading.Event()
        self._metrics = Metrics(options.switches())
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rest")
        directory = open_directory(options.data)
        publishers = PublishersOnDisk(directory.publishers, required=False)
        try:
            self._store = SqliteStore(directory.database)
        except Unavailable as err:
            raise SettingsUnacceptable(str(err)) from err
        self._provider = embedded(
            self._store,
            conflict=Conflict,
            unavailable=Unavailable,
            publishers=publishers,
            witness=directory.newest,
        )
        self._expiry = ExpiryWatch(self._provider, self._metrics.show_expiry)
        try:
            self._listen(directory)
        except SettingsUnacceptable:
            self._store.close()
            raise

    def _listen(self, directory: Directory) -> None:
        options = self._options
        reception = Reception(self._provider, self._clock, options.insecure_unsigned)
        self._grpc = GrpcServer(
            options.listen,
            self._tls(options.listen, directory),
            reception=reception,
            directory=directory,
            clock=self._clock,
            metrics=self._metrics,
        )
        self.grpc_port = self._grpc.port
        self._rest: HttpServer | None = None
        self.rest_port: int | None = None
        if options.rest_listen is not None:
            self._rest = self._http(options.rest_listen, reception, directory)

    def start(self) -> None:
        """Answer from now on."""
        self._look()
        self._grpc.start()
        if self._rest is not None:
            self._rest.start()
        self._warn()
        threading.Thread(target=self._look_after, name="beside", daemon=True).start()

    def stop(self) -> None:
        """Finish what is being answered, then close the store."""
        self._end.set()
        self._grpc.stop(_GRACE_SECONDS)
        if self._rest is not None:
            self._rest.stop()
        self._threads.shutdown()
        self._store.close()

    def _http(self, address: str, reception: Reception, directory: Directory) -> HttpServer:
        web = Web(
            reception=reception,
            directory=directory,
            clock=self._clock,
            metrics=self._metrics,
            insecure=self._options.switches(),
        )
        tls = self._tls(address, directory)
        listening = bind(*split_address(address))
        self.rest_port = listening.getsockname()[1]
        return HttpServer(Application(web, self._threads), listening, tls)

    def _tls(self, address: str, directory: Directory) -> tuple[Path, Path] | None:
        """Plain on loopback, unless a certificate was given; elsewhere only with the option that says so."""
        host, _ = split_address(address)
        if self._options.tls is not None:
            return _loadable(self._options.tls)
        if self._options.insecure_http or is_loopback(host):
            return None
        names = [*self._options.names, socket.gethostname(), *([] if _is_any(host) else [host])]
        return _loadable(tls_files(directory.path, names, self._clock()))

    def _look_after(self) -> None:
        rounds = 0
        while not self._end.wait(_LOOK_EVERY):
            rounds += 1
            self._look()
            if rounds % _WARN_EVERY == 0:
                self._warn()

    def _look(self) -> None:
        try:
            snapshot = self._provider.snapshot(self._clock())
        except ProviderUnavailable as err:
            _LOG.error("the store does not answer", extra={"members": {"reason": str(err)}})
            self._grpc.show_health(well=False)
            return
        self._metrics.show_values(len(snapshot.values))
        self._expiry.look(self._clock())
        self._grpc.show_health(well=True)

    def _warn(self) -> None:
        for switch in self._options.switches():
            _LOG.warning("insecure option is on", extra={"members": {"option": switch}})


def serve(options: Options, clock: Clock, ready: Callable[[Service], None]) -> None:
    """Run until SIGTERM or SIGINT. ready: called once it answers.

    Raises:
        SettingsUnacceptable: nothing was started.
    """
    _raise_file_limit()
    service = Service(options, clock)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    service.start()
    ready(service)
    end.wait()
    _LOG.info("stopping")
    service.stop()


def _raise_file_limit() -> None:
    """Connections are files, and the limit that shells and service managers set is close to the number we allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loadable(files: tuple[Path, Path]) -> tuple[Path, Path]:
    """Certificate and key, which load and belong together.

    Raises:
        SettingsUnacceptable: they do not.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
    except ssl.SSLError as err:
        raise SettingsUnacceptable(f"{files[0]} and {files[1]}: not a PEM certificate and its unencrypted key") from err
    except OSError as err:
        raise SettingsUnacceptable(f"{files[0]}, {files[1]}: {err.strerror}") from err
    return files


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, with brackets around an IPv6 address.

    Raises:
        SettingsUnacceptable: it is none.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        raise SettingsUnacceptable(f"{address!r} is not HOST:PORT")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
