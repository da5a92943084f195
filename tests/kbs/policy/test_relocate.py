"""Moving modules below a root of their own."""

from __future__ import annotations

from typing import Any

import pytest

from kbs.errors import PolicyBroken
from kbs.policy.rego_sources import policies_folder
from kbs.policy.relocate import check_relocated, relocate


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("package policy\nallow := true\n", "package r.policy\nallow := true\n"),
        ("# data\n\npackage policy # data\nx := data.y\n", "# data\n\npackage r.policy # data\nx := data.r.y\n"),
        ('package policy\nx := data["resource-path"][0]\n', 'package r.policy\nx := data.r["resource-path"][0]\n'),
        ('package policy\nx := "data.y"\n', 'package r.policy\nx := "data.y"\n'),
        ('package policy\nx := "\\"data.y"\n', 'package r.policy\nx := "\\"data.y"\n'),
        ('package policy\nx := `\n"data.y`\n', 'package r.policy\nx := `\n"data.y`\n'),
        ("package policy\nx := input.data.y\n", "package r.policy\nx := input.data.y\n"),
        ("package policy\nx := data_y + my_data\n", "package r.policy\nx := data_y + my_data\n"),
        ("package policy\nimport data.kbs.findings as f\n", "package r.policy\nimport data.r.kbs.findings as f\n"),
        ("package policy\nx := a with data.plugin as 1\n", "package r.policy\nx := a with data.r.plugin as 1\n"),
        ("package kbs.resource\nx := data.policy.allow\n", "package r.kbs.resource\nx := data.r.policy.allow\n"),
    ],
)
def test_packages_and_data_move_and_nothing_else(text: str, moved: str) -> None:
    assert relocate(text, "r") == moved


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("x := data.kbs.findings.finding(1)", "x := data.lib.kbs.findings.finding(1)"),
        ('x := data.kbs["findings"]', 'x := data.lib.kbs["findings"]'),
        ('x := data["kbs"]["findings"]', 'x := data.lib["kbs"]["findings"]'),
        ("import data.kbs.findings as f", "import data.lib.kbs.findings as f"),
        ("x := data.kbs.findings_of_mine", "x := data.r.kbs.findings_of_mine"),
        ("x := data.kbs.Findings", "x := data.r.kbs.Findings"),
        ("x := data.kbs", "x := data.r.kbs"),
        ("x := data.kbs[name]", "x := data.r.kbs[name]"),
        ("x := input.data.kbs.findings", "x := input.data.kbs.findings"),
        ("# data.kbs.findings", "# data.kbs.findings"),
    ],
)
def test_the_library_has_a_root_of_its_own(text: str, moved: str) -> None:
    found = relocate(f"package policy\n{text}\n", "r", library="lib", shared={"findings"})
    assert found == f"package r.policy\n{moved}\n"


@pytest.mark.parametrize(
    "text", ["", "allow := true", "import data.x\npackage policy", 'package policy["x"]\n', "package\npolicy"]
)
def test_a_text_without_a_plain_package_is_refused(text: str) -> None:
    with pytest.raises(PolicyBroken):
        relocate(text, "r")


def test_every_shipped_text_can_be_moved() -> None:
    for path in policies_folder().rglob("*.rego"):
        assert "package kbs_x." in relocate(path.read_text(encoding="utf-8"), "kbs_x")


def ref(*names: str) -> dict[str, Any]:
    kinds = ["var", *["string"] * (len(names) - 1)]
    return {"type": "ref", "value": [{"type": kind, "value": name} for kind, name in zip(kinds, names, strict=True)]}


def module(*references: Any, package: tuple[str, ...] = ("data", "r", "policy")) -> dict[str, Any]:
    return {"package": {"path": ref(*package)["value"]}, "rules": [{"body": [{"terms": list(references)}]}]}


def test_a_moved_module_passes() -> None:
    check_relocated(module(ref("data", "r", "plugin"), ref("input", "x")), "r")


def test_of_the_library_only_its_packages_may_be_read() -> None:
    def check(*names: str) -> None:
        check_relocated(module(ref(*names)), "r", library="lib", shared={"findings"})

    check("data", "lib", "kbs", "findings", "finding")
    check("data", "r", "policy", "allow")
    for names in (
        ("data", "lib"), ("data", "lib", "policy", "query_reference_value"), ("data", "lib", "kbs"),
        ("data", "lib", "kbs", "version"), ("data", "r", "kbs"), ("data", "r", "kbs", "findings"), ("data", "r_values"),
    ):  # fmt: skip
        with pytest.raises(PolicyBroken):
            check(*names)


@pytest.mark.parametrize(
    "tree",
    [None, {}, [], module(ref("data", "plugin")), module(ref("data")), module(ref("data", "other", "r")),
     module(package=("data", "policy")), {**module(), "imports": [{"path": ref("data", "x")}]}],
)  # fmt: skip
def test_what_was_not_moved_is_noticed(tree: Any) -> None:
    with pytest.raises(PolicyBroken):
        check_relocated(tree, "r")
