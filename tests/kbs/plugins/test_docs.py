"""Every block of settings on the pages of plugins is taken by the program."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from kbs import config
from kbs.plugins.resource.backends import external_stores
from tests.fakes.broker import StoppedClock

PAGES = Path(__file__).parents[3] / "docs/plugins"
BLOCKS = {
    f"{page.name}-{number}": text
    for page in sorted(PAGES.glob("*.md"))
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
}


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_settings_on_the_page_are_settings(block: str, tmp_path: Path) -> None:
    settings = config.parse(tomllib.loads(BLOCKS[block]))
    for name in ("vault-ca.pem", "pkcs11.so"):
        (tmp_path / name).touch()
    assert len(external_stores(settings.resource, tmp_path, StoppedClock())) == len(settings.resource.store)
