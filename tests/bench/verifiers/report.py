"""The findings for people: tables on a terminal, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.verifiers.event_logs import LIMIT_MS, SIZES


def show(found: dict[str, Any], console: Console) -> None:
    """Three tables."""
    console.print(_verifiers(found["verifiers"]))
    console.print("CPU time, medians; collateral at hand, chains seen before, every evidence new", style="dim")
    console.print("best: shortest by shortest; at most: snp 1.2 x floor + 50 µs, tdx and sgx 3 x floor\n", style="dim")
    console.print(_event_logs(found["event_logs"]))
    console.print(f"parsed, replayed, made into claims; to reach: 1 MiB in {LIMIT_MS:g} ms, and linear\n", style="dim")
    table = _table("guests that start together", "", "guests", "verified", "vendor requests", "different ones")
    for each in found["guests"]:
        colour = "[green]" if each["requests"] == each["distinct"] else "[red]"
        numbers = (str(each[name]) for name in ("guests", "verified"))
        table.add_row(each["tee"], *numbers, f"{colour}{each['requests']}", str(each["distinct"]))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", header_style="bold")
    return table


def _verifiers(rows: list[dict[str, Any]]) -> Table:
    table = _table("one evidence, warm, µs", "", "verify", "floor", "ratio", "best", "at most", "dcap-qvl", "floor is")
    for row in rows:
        wanted = "-"
        if "target" in row:
            colour = "[green]" if row["reached"] else "[yellow]"
            wanted = f"{colour}{row['target_us']:.0f}"
        table.add_row(
            row["tee"],
            f"{row['verify_us']:.0f}",
            f"{row['floor_us']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['best_ratio']:.2f}",
            wanted,
            f"{row['dcap_qvl_us']:.0f}" if "dcap_qvl_us" in row else "-",
            row["floor"],
        )
    return table


def _event_logs(rows: list[dict[str, Any]]) -> Table:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    table = _table("event logs, ms", "", *map(_size, SIZES), "µs/KiB", "events")
    for kind in kinds:
        mine = [row for row in rows if row["kind"] == kind]
        each_kib = [row["milliseconds"] * 1e3 / row["size"] * 1024 for row in mine]
        last = mine[-1]["milliseconds"]
        cells = [f"{row['milliseconds']:.2f}" for row in mine]
        cells[-1] = f"{'[green]' if last <= LIMIT_MS else '[yellow]'}{last:.1f}"
        table.add_row(kind, *cells, f"{each_kib[-1]:.0f}", str(mine[-1]["events"]))
    return table


def _size(octets: int) -> str:
    return f"{octets >> 20} MiB" if octets >= 1 << 20 else f"{octets >> 10} KiB"


def plot(found: dict[str, Any], path: Path) -> None:
    """Ratios to the floor, and time over size of event logs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (ratio, logs) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    rows = found["verifiers"]
    names = [row["tee"] for row in rows]
    ratio.barh(names, [row["ratio"] for row in rows], color="#4477aa")
    targets = [(row["target_us"] / row["floor_us"], number) for number, row in enumerate(rows) if "target" in row]
    ratio.plot(*zip(*targets, strict=True), "|", color="#cc6677", markersize=18, markeredgewidth=2, label="to reach")
    ratio.invert_yaxis()
    ratio.axvline(1, color="#777777", linewidth=0.8)
    ratio.legend()
    ratio.set(title="one evidence, in bare signature checks")
    for kind in dict.fromkeys(row["kind"] for row in found["event_logs"]):
        mine = [row for row in found["event_logs"] if row["kind"] == kind]
        logs.loglog([row["size"] / 1024 for row in mine], [row["milliseconds"] for row in mine], "o-", label=kind)
    logs.axhline(LIMIT_MS, color="#cc6677", linestyle="--")
    logs.legend()
    logs.set(title="event logs, ms", xlabel="KiB")
    figure.savefig(path, dpi=110)
