"""Entry points: found once, and again where Python looks elsewhere."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from kbs import extensions
from kbs.errors import ConfigInvalid

GROUP = "kbs.tests"


def install(folder: Path, name: str, group: str = GROUP) -> None:
    """A package that says where `name` is."""
    info = folder / f"{folder.name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = pathlib:Path\n")


def test_what_comes_onto_the_path_is_seen_and_what_leaves_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "one", "it")
    with pytest.raises(ConfigInvalid, match="'it' has 0 providers, expected one"):
        extensions.load(GROUP, ["it"])
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "one")
        assert extensions.load(GROUP, ["it"]) == {"it": Path}
        install(tmp_path / "two", "it")
        patch.syspath_prepend(tmp_path / "two")
        with pytest.raises(ConfigInvalid, match="'it' has 2 providers"):
            extensions.load(GROUP, ["it"])
    with pytest.raises(ConfigInvalid, match="'it' has 0 providers"):
        extensions.load(GROUP, ["it"])


def test_other_groups_and_names_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", "it", "kbs.others")
    monkeypatch.syspath_prepend(tmp_path / "one")
    with pytest.raises(ConfigInvalid, match="'it' has 0 providers"):
        extensions.load(GROUP, ["it"])
    assert extensions.load("kbs.others", []) == {}


def test_packages_are_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", "it")
    monkeypatch.syspath_prepend(tmp_path / "one")
    asked: list[str] = []
    original = entry_points

    def counted(*, group: str) -> object:
        asked.append(group)
        return original(group=group)

    monkeypatch.setattr(extensions, "entry_points", counted)
    for _ in range(3):
        extensions.load(GROUP, ["it", "it"])
    assert asked == [GROUP]
