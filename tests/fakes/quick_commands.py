"""`kbs`, `rvps` and `python` for documents that tests run: each command is a fork of one process that has imported all.

Starting Python and importing costs half a second of CPU for every command of a document; a fork costs milliseconds.
What runs, with which arguments, files, directory and environment, is what the shell said.
"""

from __future__ import annotations

import array
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SHIM = """#!{python} -ISE
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({path!r})
    said = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    link.sendmsg([len(said).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    link.sendall(said)
    sys.exit(link.recv(1)[0])
"""


class QuickCommands:
    """A folder for the front of PATH, and the process behind it. Stop it at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        path = str(folder / "commands")
        for name in ("kbs", "rvps", "python"):
            shim = self.folder / name
            shim.write_text(_SHIM.format(python=sys.executable, path=path, name=name))
            shim.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, path], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        self._process.stdout.read(1)

    def stop(self) -> None:
        """End the process, and what commands left running."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main() -> None:
    """Answer until killed."""
    import kbs.cli
    import rvps.cli

    assert kbs.cli.main is not None
    assert rvps.cli.main is not None
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen(16)
        os.write(1, b".")
        while True:
            link, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(link)
            link.close()


def _answer(link: socket.socket) -> None:
    """In a child: fork once more, so that this process can tell how it ended, and nobody needs to wait for it."""
    files = array.array("i")
    head, ancillary, _, _ = link.recvmsg(8, socket.CMSG_LEN(3 * files.itemsize))
    for _, _, data in ancillary:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    said = b""
    while len(said) < int.from_bytes(head, "big"):
        said += link.recv(1 << 16)
    child = os.fork()
    if child == 0:
        link.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os._exit(_run(*json.loads(said)))
    for file in files:
        os.close(file)
    _, status = os.waitpid(child, 0)
    link.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
    os._exit(0)


def _run(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [name, *arguments]
    sys.path.insert(0, "")
    try:
        if name != "python":
            module = sys.modules[f"{name}.cli"]
            module.main()
        elif arguments[:1] == ["-c"]:
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        elif arguments[:1] == ["-m"]:
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter ends a program
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main()
