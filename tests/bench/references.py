"""`make bench-rvps`: 100 000 reference values beside 10: look-up, snapshot, a decision; publishing; revocation.

In process: the embedded provider over SQLite. Over HTTP: a real `rvps serve`, and eight replicas, each a process with a
remote provider that polls twice a second as a broker's worker does; the time is from the request that revokes to the
moment at which the last of them no longer delivers the value.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from kbs.policy.wasm import WasmEngine
from rvps import signing
from rvps.client import RemoteProvider, RemoteSettings
from rvps.errors import ProviderUnavailable
from rvps.publishers import model as publishers
from rvps.server.sqlite import Conflict, SqliteStore, Unavailable
from rvps.service import EmbeddedProvider
from rvps.snapshots import wire as snapshot_wire
from rvps.value_set import ValueSet
from tests.bench.policy import median_us, subject
from tests.fakes.running_provider import RunningProvider

COUNTS = (10, 100_000)
ONE_STATEMENT = 10_000
_PUBLISHERS = '[publishers.bench]\ntypes = ["dsse"]\nnamespaces = ["other_", "snp_", "marker"]\nkeys = ["bench.pub"]\n'
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Publisher:
    """A folder with a file of publishers, and the key that may sign."""

    folder: Path
    key: signing.SigningKey

    @classmethod
    def new(cls, folder: Path) -> Publisher:
        key = signing.new_key("p256")
        folder.mkdir()
        (folder / "bench.pub").write_bytes(key.public_pem)
        (folder / "publishers.toml").write_text(_PUBLISHERS)
        return cls(folder, key)

    def message(self, series: str, values: Mapping[str, Any], serial: int = 1) -> bytes:
        expires = datetime.now(UTC) + timedelta(days=90)
        statement = signing.values_statement(ValueSet(series, values), serial=serial, expires=expires)
        return signing.message(signing.sign(statement, self.key))

    def messages(self, count: int) -> Iterator[bytes]:
        """`count` values, those of the default policy among them, at most `ONE_STATEMENT` in each message."""
        known = subject()[2]
        names = [*known.items(), *((f"other_{n}", [f"{n:064x}"]) for n in range(count - len(known)))]
        for start in range(0, len(names), ONE_STATEMENT):
            yield self.message(f"part-{start}", dict(names[start : start + ONE_STATEMENT]))


def main() -> int:
    """Measure, print, and write bench-rvps.json and .png."""
    parser = argparse.ArgumentParser(prog="make bench-rvps", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="in each of seven rounds")
    parser.add_argument("--rounds", type=int, default=5, help="revocations at each number of values")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    out = Console(highlight=False)
    report: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1), "replicas": options.replicas}
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            with out.status(f"{count} values"):
                found = in_process(Path(folder) / f"embedded-{count}", count, options.calls)
                found |= over_http(Path(folder) / f"served-{count}", count, options.replicas, options.rounds)
            report[str(count)] = found
    few, many = (report[str(count)] for count in COUNTS)
    report["ratio"] = {name: round(many[name] / few[name], 2) for name in ("query_us", "snapshot_us", "decision_us")}
    report["load_after"] = round(os.getloadavg()[0], 1)
    options.out.mkdir(exist_ok=True)
    (options.out / "bench-rvps.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(report, out)
    _plot(report, options.out / "bench-rvps.png")
    print(f"{options.out}/bench-rvps.json  {options.out}/bench-rvps.png")
    return 0


def in_process(folder: Path, count: int, calls: int) -> dict[str, float]:
    """CPU of the embedded provider: one statement of 10 000 values, a change, look-ups, a decision."""
    publisher = Publisher.new(folder)
    known = publishers.load(folder / "publishers.toml")
    store = SqliteStore(folder / "rvps.db")
    provider = EmbeddedProvider(store, conflict=Conflict, unavailable=Unavailable, publishers=lambda: known)
    at = datetime.now(UTC)
    spent = [
        _cpu_ms(lambda each=message: provider.submit(json.loads(each), at)) for message in publisher.messages(count)
    ]
    provider.snapshot(at)
    provider.submit(json.loads(publisher.message("marker", {"marker": ["00"]})), at)
    rebuilt = _cpu_ms(lambda: provider.snapshot(at))
    snapshot = provider.snapshot(at)
    wire = snapshot_wire.write(snapshot)
    policy, claims, _ = subject()
    engine = WasmEngine(lambda: at)
    engine.appraise(policy, claims, snapshot)
    clock = time.process_time
    found = {
        "values": len(snapshot.values),
        "publish_cpu_ms": round(max(spent), 1),
        "snapshot_after_change_ms": round(rebuilt, 1),
        "replica_refresh_ms": round(min(_cpu_ms(lambda: snapshot_wire.read(wire)) for _ in range(5)), 1),
        "query_us": round(median_us(lambda: provider.query("snp_launch_measurement", at), calls, clock), 2),
        "snapshot_us": round(median_us(lambda: provider.snapshot(at), calls, clock), 2),
        "decision_us": round(
            median_us(lambda: engine.appraise(policy, claims, provider.snapshot(at)), calls, clock), 1
        ),
    }
    engine.close()
    store.close()
    return found


def over_http(folder: Path, count: int, replicas: int, rounds: int) -> dict[str, Any]:
    """Seconds of publishing 10 000 values in one request, and until all replicas know of a revocation."""
    publisher = Publisher.new(folder)
    service = RunningProvider(folder)
    try:
        with httpx.Client(base_url=f"http://{service.rest}/kbs/v0/admin/reference-values/", timeout=_SECONDS) as http:
            posted = [_submit(http, message) for message in publisher.messages(count)]
            with _replicas(service, replicas) as links:
                delays = [_revoked(http, publisher, service.token(), links, serial) for serial in range(1, rounds + 1)]
    finally:
        service.stop()
    return {"publish_seconds": round(max(posted), 3), "revocation_seconds": [round(each, 3) for each in delays]}


def _submit(http: httpx.Client, message: bytes) -> float:
    start = time.perf_counter()
    http.post("submit", content=message).raise_for_status()
    return time.perf_counter() - start


def _revoked(http: httpx.Client, publisher: Publisher, token: str, links: list[Connection], serial: int) -> float:
    """State a value, wait until every replica delivers it, revoke it: seconds until no replica does."""
    message = publisher.message("marker", {"marker": [f"{serial}"]}, serial)
    answer = http.post("submit", content=message).raise_for_status().json()
    for link in links:
        link.send(True)
    for link in links:
        _received(link)
    for link in links:
        link.send(False)
    start = time.monotonic()
    body = json.dumps({"reason": "bench"})
    headers = {"Authorization": f"Bearer {token}"}
    target = f"statements/{answer['status']['digest']}/revoke"
    http.post(target, content=body, headers=headers).raise_for_status()
    return max(_received(link) for link in links) - start


def _received(link: Connection) -> float:
    if not link.poll(_SECONDS):
        raise TimeoutError("a replica saw no change")
    found: float = link.recv()
    return found


@contextlib.contextmanager
def _replicas(service: RunningProvider, count: int) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    arguments = (f"http://{service.rest}", service.token("broker-token"))
    processes = [context.Process(target=_replica, args=(*arguments, inner), daemon=True) for _, inner in pairs]
    for process in processes:
        process.start()
    try:
        yield [outer for outer, _ in pairs]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _replica(url: str, token: str, link: Connection) -> None:
    """For each wish, the moment (monotonic, of the machine) from which on the marker is there, or gone."""
    provider = RemoteProvider(RemoteSettings(url=url, token=token, max_age_seconds=_SECONDS))
    while True:
        wish = link.recv()
        while _has_marker(provider) is not wish:
            time.sleep(0.002)
        link.send(time.monotonic())


def _has_marker(provider: RemoteProvider) -> bool | None:
    """None: the first snapshot is not here yet."""
    try:
        return "marker" in provider.snapshot(datetime.now(UTC)).values
    except ProviderUnavailable:
        return None


def _cpu_ms(call: Any) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title="reference values", title_justify="left", box=None, pad_edge=False)
    for name in ("", *(f"{count} values" for count in COUNTS), "ratio"):
        table.add_column(name, justify="right" if name else "left", header_style="bold")
    few, many = (report[str(count)] for count in COUNTS)
    for name, text in _ROWS.items():
        ratio = report["ratio"].get(name)
        cells = [max(each[name]) if isinstance(each[name], list) else each[name] for each in (few, many)]
        table.add_row(text.format(**report), *(f"{cell:g}" for cell in cells), "" if ratio is None else f"{ratio:.2f}")
    console.print(table)
    console.print(f"load of the machine: {report['load_before']} before, {report['load_after']} after")


_ROWS = {
    "query_us": "look-up of one name, µs CPU",
    "snapshot_us": "snapshot, nothing changed, µs CPU",
    "decision_us": "decision of the default policy, µs CPU",
    "snapshot_after_change_ms": "snapshot after one change, ms CPU",
    "replica_refresh_ms": "the same read by a replica, ms CPU",
    "publish_cpu_ms": "largest statement (10 000 values beside 10) taken, ms CPU",
    "publish_seconds": "the same over HTTP, s",
    "revocation_seconds": "revocation until the last of {replicas} replicas, s, worst",
}


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (cost, delay) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, colour in (("query_us", "#4477aa"), ("snapshot_us", "#228833"), ("decision_us", "#cc6677")):
        cost.plot(COUNTS, [report[str(count)][name] for count in COUNTS], "o-", color=colour, label=name[:-3])
    cost.set(xscale="log", yscale="log", xlabel="values", ylabel="µs CPU")
    cost.legend()
    delay.boxplot([report[str(count)]["revocation_seconds"] for count in COUNTS])
    delay.set_xticks(range(1, len(COUNTS) + 1), [str(count) for count in COUNTS])
    delay.axhline(1, color="#cc6677", linestyle=":")
    delay.set(xlabel="values", ylabel=f"s until {report['replicas']} replicas know", ylim=(0, None))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
