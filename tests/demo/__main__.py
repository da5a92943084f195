"""`python -m tests.demo`: exits 0 when all of it came out as it says, else 1."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.demo.differences import DIFFERENCES
from tests.demo.processes import Shell
from tests.demo.story import tell
from tests.demo.terminal import DemoFailed, Terminal


def main(arguments: Sequence[str]) -> int:
    """Tell the story; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    names = [difference.name for difference in DIFFERENCES]
    parser.add_argument("--differ", choices=names, help="where the guest of step 4 differs; default: at random")
    chosen = parser.parse_args(arguments).differ or random.SystemRandom().choice(names)
    difference = next(each for each in DIFFERENCES if each.name == chosen)
    terminal = Terminal()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kbs-demo-") as name:
        try:
            tell(Shell(Path(name), terminal), difference)
        except (DemoFailed, subprocess.TimeoutExpired) as err:
            terminal.end(f"The demonstration failed: {err} (again with: --differ {chosen})", good=False)
            return 1
    terminal.end(f"All of it came out as it says, in {time.monotonic() - began:.0f} seconds.", good=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
