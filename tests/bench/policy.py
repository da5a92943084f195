"""`make bench-policy`: one decision of the default CPU policy on SNP claims, as multiples of one P-256 verification.

In process by the Wasm engine, and beside it by an OPA server on a Unix socket where `opa` is there: same policy, same
claims, same run. Then what must not matter: 10 to 100 000 reference values, and 1 to 1 000 policies, all in use and
asked in turn. In process each of those is a copy of its own of code that was compiled once: compiling them all would
take minutes and say nothing about decisions. Getting ready is measured by itself: compiling in process, and pushing one
more policy to a server that holds some; a server gets its many policies as a bundle. Each step has a bound, and so has
all of it; what passes them is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import wasmtime
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kbs import strict_json
from kbs.policy.engine import Policy, PolicyEngine
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from rvps.model import Snapshot
from tests.bench.opa_bundle import preloaded
from tests.opa_binary import find_opa
from tests.policy_corpus.__main__ import opa_engine

REFERENCE_COUNTS = (10, 100, 1_000, 10_000, 100_000)
POLICY_COUNTS = (1, 10, 100, 1_000)
PUSHED_COUNTS = (1, 8, 32, 128)  # a broker keeps no more on a server
_ROUNDS = 7
_BOUND = 60.0  # seconds for making one number of policies ready
_NOW = datetime(2026, 6, 15, tzinfo=UTC)


def main() -> int:
    """Measure, print, and write bench-policy.json and .png."""
    parser = argparse.ArgumentParser(prog="make bench-policy", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="in each of seven rounds")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--policies", type=int, default=POLICY_COUNTS[-1], help="the most that are tried")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing further is begun")
    options = parser.parse_args()
    out, until = Console(highlight=False), time.monotonic() + options.minutes * 60
    counts = [count for count in POLICY_COUNTS if count <= options.policies]
    report: dict[str, Any] = {"load_before": os.getloadavg()[0], "verification_us": round(verification_us(), 1)}
    report["wasm_compile_ms"] = _compiling()
    report["wasm"] = {
        **_by_values(WasmEngine(lambda: _NOW), options.calls, until),
        **_wasm_policies(options.calls, counts, out, until),
    }
    opa = find_opa()
    if opa is not None:
        with opa_engine(opa) as engine:
            report["opa_server"] = _by_values(engine, options.calls // 10, until)
        report["opa_server"] |= _opa_policies(opa, options.calls // 10, counts, out, until)
        report["opa_push"] = _pushing(opa, until)
    report["load_after"] = os.getloadavg()[0]
    options.out.mkdir(exist_ok=True)
    (options.out / "bench-policy.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(report, out)
    _plot(report, options.out / "bench-policy.png")
    print(f"{options.out}/bench-policy.json  {options.out}/bench-policy.png")
    return 0


def subject() -> tuple[Policy, bytes, dict[str, Any]]:
    """The default CPU policy, SNP claims that it affirms, and the reference values it does so by."""
    folder = policies_folder() / "fixtures"
    claims = json.loads((folder / "snp.json").read_text(encoding="utf-8"))["good"]
    values = json.loads((folder / "references.json").read_text(encoding="utf-8"))["snp"]
    return Shipped.load().policy("evidence/cpu"), strict_json.encode(claims), values


def padded(values: dict[str, Any], count: int) -> Snapshot:
    """These values and others, `count` in all."""
    whole = {**{f"other_{number}": [f"{number:064x}"] for number in range(count - len(values))}, **values}
    encoded = strict_json.encode(whole)
    return Snapshot(hashlib.sha256(encoded).hexdigest(), whole, encoded, None)


def verification_us() -> float:
    """CPU of one ECDSA verification on P-256 with SHA-256 by `cryptography`: the yardstick."""
    key = ec.generate_private_key(ec.SECP256R1())
    signature, public = key.sign(b"yardstick", ec.ECDSA(SHA256())), key.public_key()
    return median_us(lambda: public.verify(signature, b"yardstick", ec.ECDSA(SHA256())), 200, time.process_time)


def median_us(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    """Microseconds of one call: the median of the rounds' means."""
    rounds = []
    for _ in range(_ROUNDS):
        start = clock()
        for _ in range(calls):
            call()
        rounds.append((clock() - start) / calls * 1e6)
    return statistics.median(rounds)


def _microseconds(engine: PolicyEngine, policy: Policy, claims: bytes, values: Snapshot, calls: int) -> float:
    engine.appraise(policy, claims, values)  # warm: the values are loaded, the policy compiled
    clock = time.perf_counter if engine.blocks else time.process_time
    return round(median_us(lambda: engine.appraise(policy, claims, values), calls, clock), 1)


def _by_values(engine: PolicyEngine, calls: int, until: float) -> dict[str, float]:
    policy, claims, values = subject()
    return {
        f"{count} reference values": _microseconds(engine, policy, claims, padded(values, count), calls)
        for count in REFERENCE_COUNTS
        if time.monotonic() < until
    }


def others(policy: Policy, count: int) -> list[Policy]:
    """Policies of the same meaning that no engine can take for the same."""
    texts = (f"{policy.text}\n# {number}\n" for number in range(count))
    return [dataclasses.replace(policy, text=text, digest=hashlib.sha256(text.encode()).hexdigest()) for text in texts]


def _in_turn(engine: PolicyEngine, policies: Sequence[Policy], claims: bytes, values: Snapshot, calls: int) -> float:
    """As `_microseconds`, with another policy each time, far from the one before."""
    turn = itertools.cycle([*policies[::-7], *policies])
    clock = time.perf_counter if engine.blocks else time.process_time
    return round(median_us(lambda: engine.appraise(next(turn), claims, values), calls, clock), 1)


def _compiling() -> float:
    """Milliseconds of CPU for making one policy ready in process."""
    policy, claims, values = subject()
    engine, few = WasmEngine(lambda: _NOW), padded(values, len(values))
    start = time.process_time()
    engine.appraise(policy, claims, few)
    spent = time.process_time() - start
    engine.close()
    return round(spent * 1e3, 1)


@contextmanager
def _compiled_once(wasm: bytes) -> Iterator[None]:
    """Until the end, modules of these octets are copies of machine code made once, each in pages of its own."""
    made, real = dict[int, bytes](), wasmtime.Module

    def copy(engine: wasmtime.Engine, octets: bytes) -> wasmtime.Module:
        assert octets == wasm
        if id(engine) not in made:
            made[id(engine)] = bytes(real(engine, octets).serialize())
        return real.deserialize(engine, made[id(engine)])

    with patch("wasmtime.Module", copy):
        yield


def _wasm_policies(calls: int, counts: Sequence[int], out: Console, until: float) -> dict[str, float]:
    policy, claims, values = subject()
    engine, few, found = WasmEngine(lambda: _NOW), padded(values, len(values)), {}
    policies = others(policy, counts[-1])
    with _compiled_once(policy.wasm or b""), Progress(console=out, transient=True) as bar:
        task = bar.add_task("policies in process", total=counts[-1])
        for number, each in enumerate(policies, 1):
            if time.monotonic() > until:
                break
            engine.appraise(each, claims, few)
            bar.advance(task)
            if number in counts:
                found[f"{number} policies"] = _in_turn(engine, policies[:number], claims, few, calls)
    engine.close()
    return found


def _opa_policies(opa: Path, calls: int, counts: Sequence[int], out: Console, until: float) -> dict[str, float]:
    policy, claims, values = subject()
    few, found = padded(values, len(values)), {}
    for count in counts:
        if time.monotonic() > until:
            break
        policies = others(policy, count)
        with out.status(f"an OPA server with {count} policies"), preloaded(opa, policies, few, _BOUND) as engine:
            if engine is None:
                out.print(f"OPA server: with {count} policies it did not start in {_BOUND:.0f} s; left out")
                break
            engine.appraise(policies[0], claims, few)
            found[f"{count} policies"] = _in_turn(engine, policies, claims, few, calls)
    return found


def _pushing(opa: Path, until: float) -> dict[str, float]:
    """Milliseconds until the first answer of one more policy, by how many the server holds then."""
    policy, claims, values = subject()
    few, found = padded(values, len(values)), {}
    with opa_engine(opa) as engine:
        for number, each in enumerate(others(policy, PUSHED_COUNTS[-1]), 1):
            if time.monotonic() > until:
                break
            start = time.perf_counter()
            engine.appraise(each, claims, few)
            if number in PUSHED_COUNTS:
                found[str(number)] = round((time.perf_counter() - start) * 1e3, 1)
    return found


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title="default CPU policy, SNP claims", title_justify="left", box=None, pad_edge=False)
    for name in ("", "Wasm in process, µs CPU", "P-256 verifications", "OPA server, µs", "times Wasm"):
        table.add_column(name, justify="right" if name else "left", header_style="bold")
    yardstick = report["verification_us"]
    for name, spent in report["wasm"].items():
        beside = report.get("opa_server", {}).get(name)
        shown = ("-", "-") if beside is None else (f"{beside:.0f}", f"{beside / spent:.1f}")
        table.add_row(name, f"{spent:.0f}", f"{spent / yardstick:.2f}", *shown)
    console.print(table)
    console.print(
        f"one P-256 verification: {yardstick} µs; load of the machine: {report['load_before']:.1f} before, "
        f"{report['load_after']:.1f} after"
    )
    console.print(f"one policy compiled in process: {report['wasm_compile_ms']:.0f} ms CPU")
    if "opa_push" in report:
        pushed = ", ".join(f"{spent:.0f} ms as number {count}" for count, spent in report["opa_push"].items())
        console.print(f"one more policy pushed to an OPA server, until its first answer: {pushed}")


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for axis, word in zip(axes, ("reference values", "policies"), strict=True):
        for engine, colour in (("wasm", "#4477aa"), ("opa_server", "#cc6677")):
            points = {name: spent for name, spent in report.get(engine, {}).items() if name.endswith(word)}
            if points:
                axis.plot(
                    [int(name.split()[0]) for name in points], list(points.values()), "o-", color=colour, label=engine
                )
        axis.set(xscale="log", yscale="log", xlabel=word, ylabel="µs a decision")
        axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
