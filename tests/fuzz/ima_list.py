"""IMA lists, text and binary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.event_log import ima
from kbs.errors import EvidenceRejected

TEXT = (
    b"10 2c7020ad8cab6b7419e4973171cb704bdbf52f77 ima e09e048c48301268ff38645f4c006137e42951d0 /init\n",
    b"10 0c8a706a75a5689c1e168f0a573a3cbec33061b5 ima-sig "
    b"sha256:e4cb9f5709c88376b5fc3743cd88e76b9aae8f3d992d845678de5215edb31216 boot_aggregate \n",
    b"10 49ab61dd97ea2f759edcb6c6a3387ac67f0aa576 ima-buf "
    b"sha256:0c907aab3261194f16b0c2a422a82f145bc9b9ecb8fdb633fa43e3e5379f0af2 kernel_version 372e312e302d7263312b\n",
)
BINARY = bytes.fromhex(
    "0a0000002c7020ad8cab6b7419e4973171cb704bdbf52f7703000000696d61e09e048c48301268ff38645f4c006137e42951d0050000002f696e6974"
)


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        ima.replay(data, bytes(32), "sha256")


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    yield from TEXT
    yield b"".join(TEXT)
    yield BINARY
