"""Every block of settings on the pages of plugins is taken by the program, and every command on them runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from kbs import config
from kbs.plugins.resource.backends import external_stores
from tests.fakes.broker import BrokerUnderTest, Edge, StoppedClock
from tests.kbs.cli.conftest import BrokerTransport, invoke
from tests.kbs.cli.test_spiffe import OPTIONS as SPIFFE

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


def commands() -> list[str]:
    """Lines of the blocks that say `sh`, of all pages in order."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)]
    return [line for block in blocks for line in block.splitlines() if line]


def test_commands_on_the_pages_run(tmp_path: Path) -> None:
    settings = {"KBS__PLUGINS__ENABLED": '["resource", "spiffe", "whoami"]', "KBS__PLUGINS__OPTIONS__SPIFFE": SPIFFE}
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK, settings=settings)
    lines = commands()
    assert len(lines) >= 3
    for line in lines:
        program, *words = shlex.split(line.replace("~/first-kbs", str(broker.data)))
        result = invoke(BrokerTransport(broker), *words)
        assert (program, result.exit_code) == ("kbs", 0), f"{line}: {result.output}"
    broker.close()
