"""Starts a broker (or takes `--url`), drives it at 1, 8 and 32 clients, and reports.

CPU per handshake is the time that all processes of the server used, from /proc, also as a multiple of one P-256
signature: machines differ, and one machine from second to second, the ratio less so. Signatures are therefore measured
while the load runs, a few at a time, and beside it like the server.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kbs.client.admin import AdminClient
from kbs.policy.rego_sources import policies_folder
from tests.bench.driver import STEPS

CLIENTS = (1, 8, 32)
TARGET = 35.0  # signatures a handshake, at most
_PATH = "default/bench/secret"
_TICK = os.sysconf("SC_CLK_TCK")
_KEY = ec.generate_private_key(ec.SECP256R1())
_ECDSA = ec.ECDSA(SHA256())
_BETWEEN_SIGNATURES = 0.1  # seconds: a hundredth of one core goes to the yardstick


@dataclass(frozen=True)
class Server:
    """What is driven. pid None: somebody else's, whose CPU and memory cannot be seen."""

    url: str
    path: str
    secret: bytes | None
    ca_file: str | None
    pid: int | None


def main() -> int:
    """Run the benchmark; 0 unless a handshake failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--url", help="drive this KBS in place of one of our own")
    parser.add_argument("--path", default=f"resource/{_PATH}", help="resource to ask for, with --url")
    parser.add_argument("--ca-file", help="PEM of the server's CA, with an https --url")
    parser.add_argument("--pid", type=int, help="process whose CPU and memory to count, with --url")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, nargs="*", default=list(CLIENTS))
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    console = Console(highlight=False)
    if options.url:
        server = Server(options.url, options.path, None, options.ca_file, options.pid)
        runs = _drive(server, options.clients, options.seconds, console)
    else:
        with _own_broker(options.workers) as server:
            runs = _drive(server, options.clients, options.seconds, console)
    report = {
        "url": options.url,
        "workers": None if options.url else options.workers,
        "cores": os.cpu_count(),
        "signature_us": round(statistics.median(run["signature_us"] for run in runs), 1),
        "runs": runs,
    }
    options.out.mkdir(exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(report, console)
    _plot(report, options.out / "bench.png")
    console.print(f"[dim]{options.out}/bench.json  {options.out}/bench.png[/]")
    return 1 if any(run["errors"] for run in runs) else 0


@contextmanager
def _own_broker(workers: int) -> Iterator[Server]:
    """A broker from nothing: SQLite, audit log, shipped policies, sample evidence, plain HTTP."""
    with tempfile.TemporaryDirectory(prefix="kbs-bench-") as folder:
        data = Path(folder) / "data"
        _kbs("init", str(data), "--insecure-sample", "--insecure-http")
        url = f"http://127.0.0.1:{_free_port()}"
        listen = url.removeprefix("http://")
        command = [sys.executable, "-m", "kbs", "serve", "--data", str(data), "--listen", listen]
        with (Path(folder) / "serve.log").open("wb") as log:
            process = subprocess.Popen([*command, "--workers", str(workers)], stderr=log, stdout=log)
        try:
            _wait_until_ready(url, process)
            secret = secrets.token_bytes(32)
            _seed(data, url, secret)
            yield Server(url, f"resource/{_PATH}", secret, None, process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _seed(data: Path, url: str, secret: bytes) -> None:
    admin = AdminClient(url, token_file=data / "admin-token")
    admin.set_resource(_PATH, secret)
    admin.set_reference_values(
        {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}
    )
    admin.set_resource_policy((policies_folder() / "resource/sample-demo.rego").read_bytes())


def _kbs(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "kbs", *arguments], check=True, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit("the broker did not start; run `kbs serve` by hand to see why")
        try:
            if httpx.get(f"{url}/readyz", timeout=1.0).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the broker did not become ready")


def _drive(server: Server, clients: list[int], seconds: float, console: Console) -> list[dict[str, Any]]:
    runs = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for count in clients:
            task = progress.add_task(f"{count} client{'s' if count > 1 else ''}", total=None)
            runs.append(_run(server, count, seconds))
            progress.remove_task(task)
    return runs


def _run(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.driver", "--url", server.url, "--path", server.path]
    if server.secret is not None:
        command += ["--secret", server.secret.hex()]
    if server.ca_file is not None:
        command += ["--ca-file", server.ca_file]
    common = [*command, "--clients", str(clients)]
    subprocess.run([*common, "--seconds", "1"], check=True, stdout=subprocess.DEVNULL)  # warm
    used = None if server.pid is None else cpu_seconds(server.pid)
    signatures: list[float] = []
    with subprocess.Popen([*common, "--seconds", str(seconds)], stdout=subprocess.PIPE) as driver:
        while driver.poll() is None:
            signatures += signatures_us()
            time.sleep(_BETWEEN_SIGNATURES)
        assert driver.stdout is not None
        answer = driver.stdout.read()
    if driver.returncode:
        raise SystemExit(f"the driver ended with {driver.returncode}")
    run: dict[str, Any] = json.loads(answer)
    run["per_second"] = round(run["handshakes"] / seconds, 1)
    run["signature_us"] = round(statistics.median(signatures), 1)
    if server.pid is not None and used is not None and run["handshakes"]:
        cpu = (cpu_seconds(server.pid) - used) / run["handshakes"] * 1e6
        run["cpu_us_per_handshake"] = round(cpu, 1)
        run["signatures_per_handshake"] = round(cpu / run["signature_us"], 1)
        run["memory_mib"] = round(memory_mib(server.pid), 1)
    return run


def signature_us() -> float:
    """CPU of one ECDSA signature on P-256 with SHA-256 by `cryptography`: the yardstick."""
    return statistics.median(signatures_us(1000))


def signatures_us(count: int = 20) -> list[float]:
    """CPU of each of some; the answer of the first few is slower, as a server's is that has just woken up."""
    found = []
    for _ in range(count):
        start = time.process_time()
        _KEY.sign(b"yardstick", _ECDSA)
        found.append((time.process_time() - start) * 1e6)
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process family so far."""
    ticks = 0
    for each in family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def memory_mib(pid: int) -> float:
    """Proportional set size of a process family."""
    total = 0
    for each in family(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title="full handshakes: medians of each step and of the whole, and p99, in ms")
    table.title_justify, table.box, table.pad_edge = "left", None, False
    for name in ("clients", "/s", *STEPS, "whole", "p99", "CPU µs", "sigs", "MiB", "errors"):
        table.add_column(name, justify="right", header_style="bold", no_wrap=True)
    for run in report["runs"]:
        steps = run["steps_ms"]
        signatures = run.get("signatures_per_handshake")
        colour = "" if signatures is None else ("[green]" if signatures <= TARGET else "[yellow]")
        table.add_row(
            str(run["clients"]),
            f"{run['per_second']:.0f}",
            *(f"{steps[step].get('p50', math.nan):.3g}" for step in (*STEPS, "total")),
            f"{steps['total'].get('p99', math.nan):.3g}",
            f"{run['cpu_us_per_handshake']:.0f}" if "cpu_us_per_handshake" in run else "-",
            f"{colour}{'-' if signatures is None else signatures}",
            f"{run['memory_mib']:.0f}" if "memory_mib" in run else "-",
            str(sum(run["errors"].values())),
        )
    console.print(table)
    console.print(
        f"one P-256 signature: {report['signature_us']} µs; to reach: at most {TARGET:.0f} signatures a handshake "
        "(the reference implementation: about 65)"
    )
    for run in report["runs"]:
        for text, count in run["errors"].items():
            console.print(f"[red]{count} times: {text}[/]")


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = report["runs"]
    labels = [str(run["clients"]) for run in runs]
    figure, (rate, latency, cost) = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    rate.bar(labels, [run["per_second"] for run in runs], color="#4477aa")
    rate.set(title="handshakes per second", xlabel="clients")
    for percentile, colour in (("p50", "#4477aa"), ("p99", "#cc6677")):
        latency.plot(labels, [run["steps_ms"]["total"].get(percentile, 0) for run in runs], "o-", color=colour)
    latency.legend(["p50", "p99"])
    latency.set(title="whole handshake, ms", xlabel="clients")
    cost.bar(labels, [run.get("signatures_per_handshake", 0) for run in runs], color="#117733")
    cost.axhline(TARGET, color="#cc6677", linestyle="--")
    cost.set(title="server CPU in P-256 signatures", xlabel="clients")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
