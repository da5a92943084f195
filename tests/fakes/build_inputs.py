"""Stand-ins for what a release builds: firmware and a kernel that `rvps compute tdx` and `snp` take, and nothing boots.

python -m tests.fakes.build_inputs DIRECTORY RELEASE
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.rvps.compute.images import kernel, sev_firmware, tdx_firmware


def main() -> None:
    """Write `OVMF.fd`, `OVMF.amdsev.fd` and `vmlinuz` of one release; every release has others."""
    directory, release = Path(sys.argv[1]), sys.argv[2].encode()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "OVMF.fd").write_bytes(tdx_firmware(fill=release))
    (directory / "OVMF.amdsev.fd").write_bytes(sev_firmware(fill=release))
    (directory / "vmlinuz").write_bytes(kernel(release))


if __name__ == "__main__":
    main()
