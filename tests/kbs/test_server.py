"""What a broker's process does to itself before it has secrets."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import ctypes, os, resource
from kbs.server import keep_memory_private
dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
before = dumpable()
keep_memory_private()
child = os.fork()
if child == 0:
    os._exit(dumpable())
print(before, dumpable(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_memory_is_private_in_workers_too() -> None:
    """In a process of its own: there is no way back."""
    found = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["1", "0", "0", "0", "0"]
