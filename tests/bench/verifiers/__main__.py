"""Measures, prints, and writes `verifiers.json` and `verifiers.png`. Slow is no failure; a refused evidence is."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.bench.verifiers import event_logs, guests, report
from tests.bench.verifiers.subjects import EVIDENCES, Step, Subject, floors, subjects

_COLLECTOR: Final = 20_000  # allocations, as in a broker's workers


def main() -> int:
    """Run it; 0 unless something was refused (then its exception) or fetched twice."""
    parser = argparse.ArgumentParser(prog="make bench-verifiers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="rounds of each verifier; default 400")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    console = Console(highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "rounds": options.rounds}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("certificates, quotes, logs", total=None)
        measured, bare = subjects(), floors()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECTOR)
        found["verifiers"] = []
        for subject in measured:
            progress.update(task, description=subject.name)
            found["verifiers"].append(_measure(subject, bare, options.rounds))
        found["event_logs"] = []
        for kind in event_logs.KINDS:
            progress.update(task, description=f"event log: {kind}")
            found["event_logs"] += [asdict(event_logs.timed(kind, size)) for size in event_logs.SIZES]
        progress.update(task, description=f"{guests.GUESTS} guests")
        found["guests"] = [asdict(each) for each in guests.asked()]
    options.out.mkdir(exist_ok=True)
    (options.out / "verifiers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    report.show(found, console)
    report.plot(found, options.out / "verifiers.png")
    console.print(f"[dim]{options.out}/verifiers.json  {options.out}/verifiers.png[/]")
    return 1 if any(each["requests"] != each["distinct"] for each in found["guests"]) else 0


def _measure(subject: Subject, bare: dict[str, Step], rounds: int) -> dict[str, Any]:
    """Medians of what takes turns; ratios are medians of each round's own."""
    for _ in range(2 * EVIDENCES):
        subject.verify()
    kinds = sorted(set(subject.floor))
    times: dict[str, list[float]] = {"verify": [], "floor": [], "other": []}
    for _ in range(rounds):
        once = {name: _seconds(bare[name]) for name in kinds}
        times["floor"].append(sum(once[name] for name in subject.floor))
        times["verify"].append(_seconds(subject.verify))
        if subject.other is not None:
            times["other"].append(_seconds(subject.other))
    verify, floor = (median(times[name]) * 1e6 for name in ("verify", "floor"))
    best, best_floor = (min(times[name]) * 1e6 for name in ("verify", "floor"))
    row: dict[str, Any] = {
        "tee": subject.name,
        "verify_us": round(verify, 1),
        "floor": " + ".join(subject.floor),
        "floor_us": round(floor, 1),
        "ratio": round(median(a / b for a, b in zip(times["verify"], times["floor"], strict=True)), 2),
        "best_us": round(best, 1),
        "best_ratio": round(best / best_floor, 2),
    }
    if subject.other is not None:
        row["dcap_qvl_us"] = round(median(times["other"]) * 1e6, 1)
    if subject.target is not None:
        limit = subject.target.limit(floor)
        row |= {
            "target": str(subject.target),
            "target_us": round(limit, 1),
            "reached": verify <= limit,
            "best_reached": best <= subject.target.limit(best_floor),
        }
    return row


def _seconds(step: Step) -> float:
    start = time.thread_time()
    step()
    return time.thread_time() - start


if __name__ == "__main__":
    sys.exit(main())
