"""A full audit disk under a whole broker (F2, P-AUD-1): nothing leaves, and all is well once there is room.

`test_disk_full.py` fills the disk under each store; here requests come in at the edges meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.broker import Edge

ROOT = Path(__file__).parents[2]
AUDIT, EVERYTHING, FILE_SIZE = "tmpfs for the audit log", "one tmpfs for everything", "limit of file size"

# Runs in a process of its own: a limit of file size holds for all of it.
SCRIPT = """
import json, resource, sys
from pathlib import Path
from tests.attacks.world import PATH, SECRET, Site, outcome
from tests.fakes.broker import Edge
folder, small, kind, edge = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Edge(sys.argv[4])
settings = {}
if kind == "tmpfs for the audit log":
    settings = {"KBS__AUDIT__LOG": str(small / "log.jsonl"), "KBS__AUDIT__HEAD": str(small / "head")}
site = Site(small if kind == "one tmpfs for everything" else folder, settings=settings)
log = small / "log.jsonl" if settings else site.data / "audit/log.jsonl"

def records(kind):
    return [each for each in map(json.loads, log.read_text().splitlines()) if each["kind"] == kind]

def fill():
    if kind == "limit of file size":
        limit = log.stat().st_size + 3000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return
    with open(small / "ballast", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                pass

def make_room():
    if kind == "limit of file size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        (small / "ballast").unlink()

worker = site.worker(edge)
worker.prepare()
guest = worker.guest()
guest.attest()
released = [worker.get(cookie=guest.cookie) for _ in range(3)]
pending = worker.guest()
body = pending.attestation_for(pending.challenge())
fill()
while_full = [worker.get(cookie=guest.cookie) for _ in range(40)]
attests = [worker.attest(body, pending.cookie) for _ in range(3)]
write = worker.admin("POST", "resource/late/key/1", b"late")
auth = worker.call("POST", "/kbs/v0/auth", {}, b'{"version":"0.4.0","tee":"snp","extra-params":{}}')
health = worker.call("GET", "/healthz")
leaked = sum(SECRET in each.body for each in (*while_full, *attests, write))
make_room()
again = worker.attest(body, pending.cookie)
opened = pending.get_resource(PATH) == SECRET
late = worker.guest().get_resource(PATH) == SECRET
absent = worker.admin("GET", "admin/resources/late/key/1").status
write_again = worker.admin("POST", "resource/late/key/1", b"late").status
released += [each for each in while_full if each.status == 200]
site.stop()
site.worker(edge)  # opens, so the log holds what its head vouches for
site.stop()
print(json.dumps({
    "while_full": [outcome(each) for each in while_full],
    "attests": [outcome(each) for each in attests],
    "write": outcome(write), "auth": auth.status, "health": health.status, "leaked": leaked,
    "again": outcome(again), "opened": opened, "late": late, "absent": absent, "write_again": write_again,
    "released": sum(each.status == 200 for each in released) + 2,
    "granted": len(records("release.granted")),
    "accepted": len(records("evidence.accepted")),
}))
"""


@pytest.fixture(params=[AUDIT, EVERYTHING, FILE_SIZE])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A kind of limit, and the folder it holds for."""
    folder = tmp_path / "small"
    folder.mkdir()
    kind: str = request.param
    if kind == FILE_SIZE:
        yield kind, folder
        return
    size = "1m" if kind == AUDIT else "12m"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs; the same runs below a limit of file size")
    try:
        yield kind, folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run(kind: str, small: Path, folder: Path, edge: Edge) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(small), kind, edge],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("edge", list(Edge))
def test_nothing_leaves_without_its_record(small: tuple[str, Path], tmp_path: Path, edge: Edge) -> None:
    kind, folder = small
    found = run(kind, folder, tmp_path, edge)
    refusals = [outcome for outcome in found["while_full"] if outcome != [200, "ok"]]
    assert len(refusals) >= 20  # the last page of the file takes a few records more
    assert {tuple(each) for each in refusals} == {(503, "audit_unavailable")}
    assert {status for status, _ in found["attests"]} == {503}
    assert found["write"][0] == 503
    assert (found["auth"], found["health"]) == (200, 200)
    assert found["leaked"] == 0
    assert found["again"] == [200, "ok"]  # the challenge was given back
    assert (found["opened"], found["late"]) == (True, True)
    assert (found["absent"], found["write_again"]) == (404, 200)  # a change that was refused was not made
    assert found["granted"] == found["released"]
    assert found["accepted"] == 3
