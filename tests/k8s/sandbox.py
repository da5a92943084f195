"""What a container runtime does for one container, as far as tests need it: `python -m tests.k8s.sandbox SPEC FD`.

It runs inside new mount, network and process namespaces (`unshare`), puts the Pod's volumes where the container expects
them, starts the container's command, and hands out sockets of its network: the container binds the ports that its
manifest names, whatever else listens on this machine. When the other end of FD is closed, all of it ends.

SPEC is a JSON file, see `Spec`. On FD, a SOCK_SEQPACKET socket, each request is a JSON list and gets one answer:
`["connect", host, port]` and `["listen", host, port]` are answered with a socket, `["signal", number]` and `["status"]`
with the exit status, null while it runs, `["execute", command, seconds]` with that of a second command and its words.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, TypedDict

MS_RDONLY: Final = 0x1
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_LOOPBACK_UP: Final = 0x1 | 0x8 | 0x40  # IFF_UP, IFF_LOOPBACK, IFF_RUNNING
_KERNELS: Final = ("/proc", "/sys", "/dev")  # file systems of the kernel's, which a read-only root does not touch
REQUEST_BYTES: Final = 131072
ANSWER_BYTES: Final = 8192  # of each stream of a second command; quoted they may be six times as long


class Mount(TypedDict):
    """A folder or file of the machine, and where the container sees it."""

    source: str
    target: str
    read_only: bool


class Spec(TypedDict):
    """One container.

    mounts: outer ones before those inside them. keep: folders that must stay visible under a mount: the programs.
    scratch: an empty folder for what is laid over the machine's own folders. networks: of Services and Pods, whose
    addresses are this machine's in here, as [address, netmask].
    """

    command: list[str]
    environment: dict[str, str]
    directory: str
    mounts: list[Mount]
    keep: list[str]
    scratch: str
    read_only_root: bool
    networks: list[tuple[str, str]]


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    if libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def _lay_over(folder: Path) -> None:
    """Make the folder writable for us alone: what is made in it is made in the scratch folder, where we are."""
    mine = Path(folder.as_posix().strip("/").replace("/", "-"))
    upper, work = mine / "upper", mine / "work"
    for part in (upper, work):
        part.mkdir(parents=True)
    _mount("overlay", str(folder), "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")


def _mount_all(spec: Spec) -> None:
    # Opened before anything is mounted over them: a mount may hide their paths.
    kept = [(Path(path), os.open(path, os.O_PATH)) for path in spec["keep"]]
    wanted = [(mount, os.open(mount["source"], os.O_PATH)) for mount in spec["mounts"]]
    _mount("tmpfs", spec["scratch"], "tmpfs", 0)
    os.chdir(spec["scratch"])
    _make_room({Path(mount["target"]) for mount in spec["mounts"]})
    for mount, source in wanted:
        target = Path(mount["target"])
        if stat.S_ISDIR(os.fstat(source).st_mode):
            target.mkdir(parents=True, exist_ok=True)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount(f"/proc/self/fd/{source}", str(target), None, MS_BIND)
        for path, opened in kept:
            if target in path.parents:
                path.mkdir(parents=True, exist_ok=True)
                _mount(f"/proc/self/fd/{opened}", str(path), None, MS_BIND | MS_REC)
        if mount["read_only"]:
            _mount("none", str(target), None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    for _, opened in (*kept, *wanted):
        os.close(opened)
    if spec["read_only_root"]:
        _make_read_only({mount["target"] for mount in spec["mounts"]})


def _make_room(targets: set[Path]) -> None:
    """Lay something writable over the folders in which a mount point is missing, before anything is mounted in them."""
    laid: set[Path] = set()
    for target in sorted(targets):
        inside = laid | targets - {target}
        if not target.exists() and inside.isdisjoint(target.parents):
            standing = next(parent for parent in target.parents if parent.is_dir())
            _lay_over(standing)
            laid.add(standing)


def _make_read_only(but: set[str]) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4].encode().decode("unicode_escape")
        hidden = not os.path.ismount(target)  # by what was mounted over a folder above it
        if not hidden and target not in but and not target.startswith(_KERNELS):
            _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def _set_up_network(networks: list[tuple[str, str]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _LOOPBACK_UP))
        for number, pair in enumerate(networks):
            # Of a network on the loopback interface every address is local.
            for request, address in zip((_SIOCSIFADDR, _SIOCSIFNETMASK), pair, strict=True):
                packed = socket.inet_aton(address)
                name = f"lo:{number}".encode()
                fcntl.ioctl(any_socket, request, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, packed))


def _answer(request: list[Any], spec: Spec, container: subprocess.Popen[bytes]) -> tuple[Any, socket.socket | None]:
    what, *arguments = request
    if what == "execute":
        done = subprocess.run(
            arguments[0],
            env=spec["environment"],
            cwd=spec["directory"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=arguments[1],
            check=False,
        )
        return [done.returncode, done.stdout[:ANSWER_BYTES], done.stderr[-ANSWER_BYTES:]], None
    if what == "connect":
        return None, socket.create_connection((arguments[0], arguments[1]), timeout=5)
    if what == "listen":
        return None, socket.create_server((arguments[0], arguments[1]), backlog=256)
    if what == "signal":
        container.send_signal(arguments[0])
    return container.poll(), None


def main(specification: str, descriptor: str) -> None:
    """Set everything up, start the command, serve until the other end is closed."""
    spec: Spec = json.loads(Path(specification).read_text())
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    _set_up_network(spec["networks"])
    _mount_all(spec)
    container = subprocess.Popen(  # it says its words where we do: in a file that was opened outside
        spec["command"], env=spec["environment"], cwd=spec["directory"], stdin=subprocess.DEVNULL
    )
    while request := control.recv(REQUEST_BYTES):
        try:
            answer, opened = _answer(json.loads(request), spec, container)
        except (OSError, subprocess.TimeoutExpired) as err:
            control.send(json.dumps({"error": str(err)}).encode())
            continue
        reply = json.dumps({"status": answer}).encode()
        if opened is None:
            control.send(reply)
        else:
            with opened:
                opened.settimeout(None)
                socket.send_fds(control, [reply], [opened.fileno()])
    os._exit(0)  # process 1 of its namespace: what is left in there is killed


if __name__ == "__main__":
    main(*sys.argv[1:])
