"""A full disk (F2): refused as unavailable, nothing half written, well again without a person once there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The limited process fills up, makes room, and goes on; it prints what it met as JSON. `fill` and `make_room` come
# from the kind of limit; both sides of it run in one process, as a broker would live through it.
_PRELUDE = """
import json, os, resource, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kbs.audit.events import AdminRead, ReleaseGranted
from kbs.audit.gate import Decided, release
from kbs.audit.log import AuditLog
from kbs.audit.verify import verify
from kbs.errors import AuditUnavailable, StorageUnavailable
from kbs.secret import Secret
from kbs.storage.handshakes import FileHandshakeStore
from kbs.storage.model import Claim
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore
folder, kind = Path(sys.argv[1]), sys.argv[2]
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
KEYS = SealingKeys([Secret(b"\\x01" * 32)])
def fill():
    if kind == "tmpfs":
        with open(folder / "ballast", "wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    pass
    else:
        limit = max(found.stat().st_size for found in folder.rglob("*") if found.is_file()) + 3000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
def make_room():
    if kind == "tmpfs":
        (folder / "ballast").unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
_AUDIT = """
key = Ed25519PrivateKey.from_private_bytes(b"\\x07" * 32)
log = AuditLog(folder / "log", folder / "heads" / "head", key, origin="kbs", clock=lambda: NOW)
def one(number):
    event = ReleaseGranted(decision=f"{number:032x}", plugin="resource", path="p" * 900, policy="x", key="k")
    return release(log.append, Decided((event,), number))
left = [one(number) for number in range(3)]
fill()
refused, errors = 0, set()
for number in range(3, 40):
    try:
        left.append(one(number))
    except AuditUnavailable as err:
        refused += 1
        errors.add(err.operator_detail)
recorded = [int(record["decision"], 16) for record in log.records()]
assert (folder / "log").read_bytes().endswith(b"\\n")
full = verify(folder / "log", folder / "heads" / "head", key.public_key())
make_room()
left.append(one(100))
after = [int(record["decision"], 16) for record in log.records()]
report = verify(folder / "log", folder / "heads" / "head", key.public_key())
print(json.dumps([left, refused, sorted(errors), recorded, after, full.ok, report.ok]))
"""
_KEY_VALUE = """
store = SealedStore(SqliteStore(folder / "kv.db"), KEYS)
def one(number):
    store.put("ns", f"k{number}", b"%d" % number * 400, meta={}, expected=0)
    return number
written = [one(number) for number in range(3)]
fill()
refused, errors = [], set()
for number in range(3, 40):
    try:
        written.append(one(number))
    except StorageUnavailable as err:
        refused.append(number)
        errors.add(err.operator_detail)
while_full = [entry.key for entry in store.entries("ns")]
make_room()
written.append(one(refused[0]))  # expected=0 holds: the refused write left nothing
for entry in store.entries("ns"):
    assert store.get("ns", entry.key).value == entry.key[1:].encode() * 400
after = [entry.key for entry in store.entries("ns")]
print(json.dumps([written, len(refused), sorted(errors), while_full, after]))
"""
_HANDSHAKES = """
store = FileHandshakeStore(folder / "handshakes", KEYS)
LATER = NOW + timedelta(minutes=5)
def one(number):
    assert store.claim(f"c{number}", b"b" * 32, LATER, NOW) is Claim.CLAIMED
    return number
claimed = [one(number) for number in range(3)]
fill()
refused, errors = [], set()
for number in range(3, 300):
    try:
        claimed.append(one(number))
    except StorageUnavailable as err:
        refused.append(number)
        errors.add(err.operator_detail)
make_room()
claimed += [one(number) for number in refused]  # a refused claim is free, and every other one is not
assert all(store.claim(f"c{number}", b"b" * 32, LATER, NOW) is Claim.IN_PROGRESS for number in range(300))
print(json.dumps([len(claimed), len(refused), sorted(errors)]))
"""


@pytest.fixture(params=["tmpfs", "rlimit"])
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder on a small file system of its own (ENOSPC), or below a limit of file size (EFBIG)."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "rlimit":
        yield "rlimit", folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs; the same runs below a limit of file size")
    try:
        yield "tmpfs", folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run(script: str, kind: str, folder: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + script, str(folder), kind],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer


FULL = {
    "tmpfs": ("No space left on device", "database or disk is full"),
    "rlimit": ("File too large", "disk I/O error"),
}


def assert_full(errors: object, kind: str) -> None:
    assert isinstance(errors, list)
    assert errors
    assert all(any(word in str(error) for word in FULL[kind]) for error in errors), errors


def test_releases_stop_when_the_audit_disk_is_full(limited: tuple[str, Path]) -> None:
    kind, folder = limited
    left, refused, errors, recorded, after, sound_when_full, sound = run(_AUDIT, kind, folder)
    assert isinstance(left, list)
    assert isinstance(refused, int)
    assert refused > 0
    assert_full(errors, kind)
    assert recorded == left[:-1]  # what left is recorded, and what was refused is not
    assert after == left
    assert (sound_when_full, sound) == (True, True)


def test_writes_stop_when_the_store_is_full(limited: tuple[str, Path]) -> None:
    kind, folder = limited
    written, refused, errors, while_full, after = run(_KEY_VALUE, kind, folder)
    assert isinstance(written, list)
    assert isinstance(refused, int)
    assert refused > 0
    assert_full(errors, kind)
    assert while_full == sorted(f"k{number}" for number in written[:-1])
    assert after == sorted(f"k{number}" for number in written)


def test_claims_stop_when_the_handshake_disk_is_full(limited: tuple[str, Path]) -> None:
    kind, folder = limited
    claimed, refused, errors = run(_HANDSHAKES, kind, folder)
    assert claimed == 300
    assert isinstance(refused, int)
    assert refused > 0
    assert_full(errors, kind)
