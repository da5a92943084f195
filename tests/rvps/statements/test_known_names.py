"""The names offered for misspelt ones are those that the shipped policies look up."""

from __future__ import annotations

import re
from pathlib import Path

from rvps.statements.known_names import known, unknown

POLICIES = Path(__file__).parents[3] / "policies"
COMPARISONS = ("in", "equals", "at least", "at most", "all in", "contains")
"""`by_reference` of policies/lib/checks.rego: the third member of such a row is a name."""
ROW = re.compile(rf'"(?:{"|".join(COMPARISONS)})", "([^"]+)"')
CALL = re.compile(r'query_reference_(?:value|sets)\("([^"]+)"\)')


def looked_up() -> set[str]:
    texts = [path.read_text("utf-8") for path in POLICIES.rglob("*.rego") if not path.name.endswith("_test.rego")]
    return {name for text in texts for name in [*ROW.findall(text), *CALL.findall(text)]} - set(COMPARISONS)


def test_the_list_is_what_the_policies_look_up() -> None:
    assert "snp_launch_measurement" in looked_up()
    assert sorted(known()) == sorted(looked_up()), "make rvps/statements/known_names.txt anew: one name a line, sorted"


def test_the_comparisons_are_those_of_the_policies() -> None:
    text = (POLICIES / "lib" / "checks.rego").read_text("utf-8")
    found = re.search(r"by_reference := \{([^}]*)\}", text)
    assert found is not None
    assert set(re.findall(r'"([^"]+)"', found[1])) == set(COMPARISONS)


def test_a_misspelt_name_gets_the_nearest_and_a_strange_one_nothing() -> None:
    assert list(unknown(["snp_launch_measurment", "mr_td", "zzz", "zzz"])) == [
        ("snp_launch_measurment", "snp_launch_measurement"),
        ("zzz", None),
    ]
