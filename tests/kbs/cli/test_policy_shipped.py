"""`kbs policy shipped`: what `--shipped NAME` can name."""

from __future__ import annotations

import json

from click.testing import CliRunner

from kbs.cli import kbs
from kbs.policy.shipped import Shipped


def test_every_shipped_policy_is_listed_with_digest_and_title() -> None:
    result = CliRunner().invoke(kbs, ["policy", "shipped", "--json"])
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    shipped = Shipped.load()
    assert [each["name"] for each in listed] == shipped.names()
    for each in listed:
        assert each["digest"] == shipped.policy(each["name"]).digest
        assert each["title"]
        assert not each["title"].startswith(("#", ":", "Appraisal"))


def test_the_table_names_them() -> None:
    result = CliRunner().invoke(kbs, ["policy", "shipped"])
    assert result.exit_code == 0, result.output
    assert "evidence/hardware-only" in result.stdout
    assert "genuine hardware in a good state" in " ".join(result.stdout.split())
