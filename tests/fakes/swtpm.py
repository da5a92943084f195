"""A guest with a real TPM 2.0: swtpm, spoken to over its socket with the few commands that a quote takes.

Source: TPM 2.0 Library, Part 2 (structures) and Part 3 (commands); swtpm(8), `socket --server type=unixio`.
"""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kbs.attestation.tpm.keys import encode_attestation_key
from kbs.attestation.tpm.public import parse_public
from kbs.client.attesters.tpm import SoftwareTpm

_NO_SESSIONS: Final = 0x8001
_SESSIONS: Final = 0x8002
_RETRY: Final = 0x922  # TPM_RC_RETRY
_PASSWORD: Final = 0x40000009  # TPM_RS_PW
_OWNER: Final = 0x40000001
_CREATE_PRIMARY, _PCR_RESET, _QUOTE, _PCR_READ, _PCR_EXTEND = 0x131, 0x13D, 0x158, 0x17E, 0x182
_CREATE, _LOAD, _FLUSH = 0x153, 0x157, 0x165
_SHA256, _NULL, _AES, _CFB = 0x000B, 0x0010, 0x0006, 0x0043
_AK: Final = 0x00050072  # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign
_STORAGE: Final = 0x00030072  # the same, restricted, decrypt
_KEYS: Final = {  # type, then scheme and what the kind of key has; then an empty `unique`
    "rsassa": (0x0001, struct.pack(">HHHI", 0x0014, _SHA256, 2048, 0) + bytes(2)),
    "rsapss": (0x0001, struct.pack(">HHHI", 0x0016, _SHA256, 2048, 0) + bytes(2)),
    "ecdsa": (0x0023, struct.pack(">HHHH", 0x0018, _SHA256, 3, _NULL) + bytes(4)),
}
INIT_DATA_PCR: Final = 8


class TpmError(Exception):
    """A response code other than success."""


class Swtpm:
    """One TPM, started and powered on. Its state dies with its folder."""

    def __init__(self, program: Path, folder: Path) -> None:
        path = folder / "socket"
        self._process = subprocess.Popen(
            [
                program, "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--server", f"type=unixio,path={path}",
                "--ctrl", f"type=unixio,path={folder / 'control'}", "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError):
                self._socket.connect(str(path))
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise AssertionError("swtpm does not start")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def command(self, code: int, parameters: bytes, *, handles: Sequence[int] = (), authorize: int = 0) -> bytes:
        """Send one command; the response behind its header, handles and sizes included.

        `authorize`: how many of the handles need authorization; all have the empty password.
        """
        sessions = struct.pack(">IHBH", _PASSWORD, 0, 0, 0) * authorize
        body = b"".join(struct.pack(">I", handle) for handle in handles)
        body += (struct.pack(">I", len(sessions)) + sessions if authorize else b"") + parameters
        outcome, answer = _RETRY, b""
        while outcome == _RETRY:  # it tests itself before it uses an algorithm for the first time
            tag = _SESSIONS if authorize else _NO_SESSIONS
            self._socket.sendall(struct.pack(">HII", tag, 10 + len(body), code) + body)
            _, size, outcome = struct.unpack(">HII", self._receive(10))
            answer = self._receive(size - 10)
        if outcome:
            raise TpmError(f"command {code:#x}: response code {outcome:#x}")
        return answer

    def _receive(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self._socket.recv(size - len(found))
            if not more:
                raise TpmError("swtpm hung up")
            found += more
        return found

    def create_ak(self, scheme: str = "ecdsa") -> AttestationKey:
        """An attestation key: made under a fresh storage key of the owner hierarchy, and loaded."""
        storage = _public(0x0023, _STORAGE, struct.pack(">HHH", _AES, 128, _CFB), struct.pack(">HHH", _NULL, 3, _NULL))
        parent = self.command(_CREATE_PRIMARY, _creation(storage + bytes(4)), handles=[_OWNER], authorize=1)
        (parent_handle,) = struct.unpack_from(">I", parent)
        kind, details = _KEYS[scheme]
        template = _public(kind, _AK, struct.pack(">H", _NULL), details)
        created = self.command(_CREATE, _creation(template), handles=[parent_handle], authorize=1)[4:]
        private_size = 2 + struct.unpack_from(">H", created)[0]
        public_size = 2 + struct.unpack_from(">H", created, private_size)[0]
        halves = created[: private_size + public_size]
        loaded = self.command(_LOAD, halves, handles=[parent_handle], authorize=1)
        self.command(_FLUSH, struct.pack(">I", parent_handle))  # there is room for three keys
        return AttestationKey(struct.unpack_from(">I", loaded)[0], halves[private_size:])

    def extend(self, pcr: int, sha256: bytes, sha1: bytes | None = None) -> None:
        """TPM2_PCR_Extend of the SHA-256 bank with a digest, and of the SHA-1 bank if there is one for it."""
        digests = struct.pack(">H", _SHA256) + sha256
        if sha1 is not None:
            digests = struct.pack(">H", 0x0004) + sha1 + digests
        count = struct.pack(">I", 1 if sha1 is None else 2)
        self.command(_PCR_EXTEND, count + digests, handles=[pcr], authorize=1)

    def boot(self) -> bytes:
        """Measure what the software TPM's firmware and boot loader do; the event log."""
        measured = SoftwareTpm()
        for pcr, sha1, sha256 in measured.measurements:
            self.extend(pcr, sha256, sha1)
        return measured.event_log()

    def reset(self, pcr: int) -> None:
        """TPM2_PCR_Reset, which the TPM refuses for all but a few."""
        self.command(_PCR_RESET, b"", handles=[pcr], authorize=1)

    def read_pcrs(self) -> list[bytes]:
        """All 24 values of the SHA-256 bank."""
        values: list[bytes] = []
        for first in range(0, 24, 8):  # one answer has eight at most
            answer = self.command(_PCR_READ, _selections(range(first, first + 8)))
            (count,) = struct.unpack_from(">I", answer, 4)
            offset = 8 + 6 * count
            (found,) = struct.unpack_from(">I", answer, offset)
            assert found == 8
            values += [answer[offset + 4 + 34 * place + 2 :][:32] for place in range(found)]
        return values

    def quote(self, key: AttestationKey, nonce: bytes, pcrs: Iterable[int] = range(24)) -> tuple[bytes, bytes]:
        """TPM2_Quote over the SHA-256 bank: a TPMS_ATTEST and a TPMT_SIGNATURE."""
        parameters = _sized(nonce) + struct.pack(">H", _NULL) + _selections(pcrs)
        answer = self.command(_QUOTE, parameters, handles=[key.handle], authorize=1)
        (size,) = struct.unpack_from(">I", answer)
        answer = answer[4 : 4 + size]
        (message_size,) = struct.unpack_from(">H", answer)
        return answer[2 : 2 + message_size], answer[2 + message_size :]


class AttestationKey:
    """A loaded key. `public`: its TPM2B_PUBLIC, as `tpm2_createak -u` writes it."""

    def __init__(self, handle: int, public: bytes) -> None:
        self.handle = handle
        self.public = public

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return encode_attestation_key(parse_public(self.public).key)


class SwtpmAttester:
    """Makes evidence as the field's guests do: PCR 8 takes the init data once, then a quote for each challenge."""

    def __init__(self, tpm: Swtpm, key: AttestationKey, log: bytes | None = None) -> None:
        self.tpm = tpm
        self.key = key
        self.log = log
        self._init_data: bytes | None = None

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> dict[str, Any]:
        """Evidence with a fresh quote."""
        if init_data is not None and self._init_data is None:
            self.tpm.extend(INIT_DATA_PCR, init_data)
            self._init_data = init_data
        message, signature = self.tpm.quote(self.key, report_data[:32])
        return evidence(self.key.spki, message, signature, self.tpm.read_pcrs(), self.log)


def evidence(
    ak: bytes, message: bytes, signature: bytes, pcrs: Iterable[bytes], log: bytes | None = None
) -> dict[str, Any]:
    """The JSON form."""
    body: dict[str, Any] = {
        "ak_public": _b64(ak),
        "tpm_quote": {
            "signature": _b64(signature),
            "message": _b64(message),
            "pcrs": [value.hex() for value in pcrs],
        },
    }
    return body if log is None else {**body, "event_log": _b64(log)}


def _public(kind: int, attributes: int, symmetric: bytes, rest: bytes) -> bytes:
    return struct.pack(">HHIH", kind, _SHA256, attributes, 0) + symmetric + rest


def _creation(template: bytes) -> bytes:
    """Parameters of TPM2_Create and TPM2_CreatePrimary: no password, no data, no PCRs."""
    return _sized(bytes(4)) + _sized(template) + bytes(2) + bytes(4)


def _selections(pcrs: Iterable[int]) -> bytes:
    bits = sum(1 << pcr for pcr in pcrs)
    return struct.pack(">IHB", 1, _SHA256, 3) + bits.to_bytes(3, "little")


def _sized(octets: bytes) -> bytes:
    return struct.pack(">H", len(octets)) + octets


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
