"""Quotas of control groups, version 1 and 2, in a tree of our own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kbs.processors import usable_processors

_V2 = "0::/\n"
_V1 = "12:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/\n"
_DEEP = "cpu,cpuacct/docker/ab"


def tree(root: Path, cgroup: str, files: Mapping[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (_V2, {"cpu.max": "200000 100000\n"}, 2),
        (_V2, {"cpu.max": "150000 100000\n"}, 2),
        (_V2, {"cpu.max": "10000 100000\n"}, 1),
        (_V2, {"cpu.max": "max 100000\n"}, 8),
        (_V2, {"cpu.max": "6400000 100000\n"}, 8),
        (_V2, {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/not/seen/from/in/here\n", {"cpu.max": "400000 100000\n"}, 4),
        (_V1, {f"{_DEEP}/cpu.cfs_quota_us": "300000\n", f"{_DEEP}/cpu.cfs_period_us": "100000\n"}, 3),
        (_V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "50000\n"}, 2),
        (_V1, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        (_V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("5:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"}, 8),
        (_V2, {"cpu.max": "nonsense"}, 8),
        (_V2, {"cpu.max": "0 0\n"}, 8),
        (_V2, {"cpu.max": "\N{SUPERSCRIPT TWO} 1"}, 8),
        ("\n::\nx", {"cpu.max": ""}, 8),
    ],
    ids=[
        "two", "one and a half", "a tenth", "no quota", "more than there are", "no file", "the group above",
        "a group not seen", "v1", "v1 mount", "v1 link", "v1 none", "another controller", "nonsense", "zero",
        "no digit", "no groups",
    ],
)  # fmt: skip
def test_quotas(tmp_path: Path, cgroup: str, files: Mapping[str, str], expected: int) -> None:
    assert usable_processors(tree(tmp_path, cgroup, files), affinity=8) == expected


def test_affinity_counts_too(tmp_path: Path) -> None:
    assert usable_processors(tree(tmp_path, _V2, {"cpu.max": "800000 100000\n"}), affinity=3) == 3
    assert usable_processors(tmp_path) == len(os.sched_getaffinity(0))


def test_of_this_process() -> None:
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)
