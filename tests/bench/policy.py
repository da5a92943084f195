"""`make bench-policy`: one decision of the default CPU policy on SNP claims, as multiples of one P-256 verification.

In process by the Wasm engine, and beside it by an OPA server on a Unix socket where `opa` is there: same policy, same
claims, same run. Then what must not matter: 10 to 100 000 reference values, and 1 to 1 000 policies
in use, of which an engine keeps the 32 last used compiled: one that it dropped costs a compilation, 0.1 to 0.3 s.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from rich.console import Console
from rich.table import Table

from kbs import strict_json
from kbs.policy.engine import Policy, PolicyEngine
from kbs.policy.library import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from rvps.model import Snapshot
from tests.opa_binary import find_opa
from tests.policy_corpus.__main__ import opa_engine

REFERENCE_COUNTS = (10, 100, 1_000, 10_000, 100_000)
POLICY_COUNTS = (1, 10, 100, 1_000)
_ROUNDS = 7
_KEPT = 32  # policies that an engine keeps compiled: with those, it is as if all had been evaluated
_NOW = datetime(2026, 6, 15, tzinfo=UTC)


def main() -> int:
    """Measure, print, and write bench-policy.json and .png."""
    parser = argparse.ArgumentParser(prog="make bench-policy", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="in each of seven rounds")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    report = {"verification_us": round(verification_us(), 1), **_wasm(options.calls)}
    opa = find_opa()
    if opa is not None:
        with opa_engine(opa) as engine:
            policy, claims, values = subject()
            report["opa_server"] = {
                f"{count} reference values": _microseconds(
                    engine, policy, claims, padded(values, count), options.calls // 4
                )
                for count in REFERENCE_COUNTS[:4]
            }
    options.out.mkdir(exist_ok=True)
    (options.out / "bench-policy.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(report, Console(highlight=False))
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


def _wasm(calls: int) -> dict[str, Any]:
    policy, claims, values = subject()
    engine = WasmEngine(lambda: _NOW)
    by_values = {
        f"{count} reference values": _microseconds(engine, policy, claims, padded(values, count), calls)
        for count in REFERENCE_COUNTS
    }
    by_policies, held, few = {}, 1, padded(values, len(values))
    for count in POLICY_COUNTS:
        for number in range(max(held, count - _KEPT), count):
            text = f"{policy.text}\n# {number}\n"
            other = dataclasses.replace(policy, text=text, digest=hashlib.sha256(text.encode()).hexdigest())
            engine.appraise(other, claims, few)
        held = count
        by_policies[f"{count} policies"] = _microseconds(engine, policy, claims, few, calls)
    engine.close()
    return {"wasm": {**by_values, **by_policies}}


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title="default CPU policy, SNP claims", title_justify="left", box=None, pad_edge=False)
    for name in ("", "Wasm in process, µs CPU", "P-256 verifications", "OPA server, µs"):
        table.add_column(name, justify="right" if name else "left", header_style="bold")
    yardstick = report["verification_us"]
    for name, spent in report["wasm"].items():
        beside = report.get("opa_server", {}).get(name)
        table.add_row(name, f"{spent:.0f}", f"{spent / yardstick:.2f}", "-" if beside is None else f"{beside:.0f}")
    console.print(table)
    console.print(f"one P-256 verification: {yardstick} µs")


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
