"""Host functions: OPA's own cases for them, through OPA's compiler and runtime, and the limits."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import PolicyBroken
from kbs.policy import builtins, go_text, rego_values
from kbs.policy.opa_command import OpaCommand
from kbs.policy.rego_sources import CAPABILITIES
from kbs.policy.rego_values import RegoSet, ValueRefused
from kbs.policy.relocate import relocate
from kbs.policy.wasm_instance import WasmInstance, WasmModule, new_engine

CASES = json.loads((Path(__file__).parents[2] / "vectors/opa-cases/host-functions.json").read_text())["cases"]
# Forms that are not offered: the evaluation ends, which no policy can take for an answer.
NOT_OFFERED = {
    "sprintf/big_int": "the verb %s",
    "sprintf/big_int/max_cert_serial_number": "the verb %s",
    "sprintf/float/zero_fraction": "not JSON",
    "sprintf/float/exponent": "the verb %f",
    "strings/sprintf: int": "the verb %0",
    "strings/sprintf: hex": "the verb %0",
    "strings/sprintf: float": "the verb %.",
    "strings/sprintf: float too big": "the verb %v",
    "strings/sprintf: composite": "the verb %v",
    "time/date with LA tz": "other than UTC",
    "time/clock with NY tz": "other than UTC",
    "uuid-parse/positive-v2": "versions 1 and 2",
}


@dataclass(frozen=True)
class Bundle:
    """All cases in one module, each below a root of its own."""

    module: WasmModule
    data: bytes


def entry(number: int) -> str:
    path = CASES[number]["query"].split(" = ")[0].removeprefix("data.").replace(".", "/")
    return f"case_{number}/{path}"


@pytest.fixture(scope="module")
def bundle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("cases")
    names = []
    data = {}
    for number, case in enumerate(CASES):
        data[f"case_{number}"] = case.get("data") or {}
        for index, text in enumerate(case.get("modules", [])):
            names.append(f"{number}-{index}.rego")
            (folder / names[-1]).write_text(relocate(text, f"case_{number}"), encoding="utf-8")
    points = [word for number in range(len(CASES)) for word in ("-e", entry(number))]
    done = OpaCommand(opa).run(
        ["build", "-t", "wasm", "--capabilities", str(CAPABILITIES), *points, "-o", "b.tar.gz", *names], folder
    )
    assert done.code == 0, done.stderr + done.stdout.decode()
    with tarfile.open(folder / "b.tar.gz") as archive:
        wasm = archive.extractfile("/policy.wasm")
        assert wasm is not None
        module = WasmModule(new_engine(), wasm.read())
    yield Bundle(module, json.dumps(data).encode())
    module.module.close()


@pytest.mark.opa
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number]["note"])
def test_opas_own_cases(bundle: Bundle, number: int) -> None:
    case = CASES[number]
    instance = WasmInstance(bundle.module, bundle.data)
    if case["note"] in NOT_OFFERED:
        with pytest.raises(PolicyBroken) as caught:
            instance.evaluate(entry(number), json.dumps(case.get("input", {})).encode(), lambda: 0)
        assert NOT_OFFERED[case["note"]] in str(caught.value.operator_detail)
        return
    answer = json.loads(instance.evaluate(entry(number), json.dumps(case.get("input", {})).encode(), lambda: 0))
    instance.close()
    assert [found["result"] for found in answer] == [found["x"] for found in case.get("want_result") or []]


def test_everything_offered_is_listed_for_the_compiler() -> None:
    listed = {entry["name"] for entry in json.loads(CAPABILITIES.read_text())["builtins"]}
    assert builtins.HOST_FUNCTIONS.keys() <= listed


@pytest.mark.opa
def test_everything_listed_is_native_or_offered(opa: Path, tmp_path: Path) -> None:
    """A module that calls every listed function loads: what is not native is in `HOST_FUNCTIONS`."""
    lines = ["package p"]
    for number, entry_ in enumerate(json.loads(CAPABILITIES.read_text())["builtins"]):
        name, arity = entry_["name"], len(entry_["decl"].get("args") or [])
        if entry_.get("infix") or name in {"eq", "assign", "print"} or name.startswith(("internal.", "rego.")):
            continue
        arguments = ", ".join(f"input.a{index}" for index in range(arity))
        lines.append(
            f"x[{number}] := y if y := {name}({arguments})" if name != "walk" else "x[0] := y if walk(input, y)"
        )
    (tmp_path / "p.rego").write_text("\n".join(lines) + "\n")
    arguments_ = ["build", "-t", "wasm", "-e", "p/x", "--capabilities", str(CAPABILITIES), "-o", "b.tar.gz", "p.rego"]
    done = OpaCommand(opa).run(arguments_, tmp_path)
    assert done.code == 0, done.stderr + done.stdout.decode()
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        wasm = archive.extractfile("/policy.wasm")
        assert wasm is not None
        WasmInstance(WasmModule(new_engine(), wasm.read()), b"{}").close()


def call() -> builtins.Call:
    return builtins.Call(lambda: 5)


def test_the_time_is_asked_once() -> None:
    asked = []
    one = builtins.Call(lambda: len(asked) if asked.append(1) is None else 0)  # type: ignore[func-returns-value]
    assert [one.now(), one.now()] == [1, 1]
    with pytest.raises(builtins.LimitPassed):
        builtins.Call(None).now()


def test_calls_and_data_are_bounded() -> None:
    one = call()
    for _ in range(builtins.MAX_CALLS):
        one.count()
    with pytest.raises(builtins.LimitPassed):
        one.count()
    one.take(builtins.MAX_ARGUMENTS)
    with pytest.raises(builtins.LimitPassed):
        one.take(1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


ARITIES = {
    entry["name"]: [len(entry["decl"].get("args") or [])] for entry in json.loads(CAPABILITIES.read_text())["builtins"]
}


@pytest.mark.parametrize("name", sorted(builtins.HOST_FUNCTIONS))
@given(arguments=st.lists(JSON, min_size=3, max_size=3))
def test_whatever_the_arguments_a_function_answers_or_refuses(name: str, arguments: list[Any]) -> None:
    function = builtins.HOST_FUNCTIONS[name]
    for count in ARITIES[name]:
        try:
            rego_values.encode(function(call(), *arguments[:count]))
        except (builtins.Undefined, builtins.LimitPassed):
            continue


@given(JSON)
def test_values_are_read_as_opa_writes_them(value: Any) -> None:
    assert rego_values.decode(json.dumps(value, ensure_ascii=False)) == value
    assert json.loads(rego_values.encode(value)) == value


@given(st.text(alphabet='{}[]",: ()setau01\\'))
def test_other_texts_are_refused(text: str) -> None:
    try:
        rego_values.decode(text)
    except ValueRefused:
        return
    assert text


def test_sets_and_depth() -> None:
    assert rego_values.decode('[set(), {1, "a", {}}]') == [RegoSet(()), RegoSet((1, "a", {}))]
    assert rego_values.decode('{"a": {1}, "b": [2]}') == {"a": RegoSet((1,)), "b": [2]}
    for refused in ("{1: 2}", '{"a": 1', "{1, ", "[1", "1 2", "[" * 100 + "]" * 100):
        with pytest.raises(ValueRefused):
            rego_values.decode(refused)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(1, 1.0, True), (True, 1, False), (False, 0, False), ([1], [True], False), ({"a": 1}, {"a": 1}, True),
     (RegoSet((1, 2)), RegoSet((2, 1)), True), ([1, 2], RegoSet((1, 2)), False), (None, False, False), ("1", 1, False)],
)  # fmt: skip
def test_equality_is_regos(left: Any, right: Any, same: bool) -> None:
    assert (rego_values.comparable(left) == rego_values.comparable(right)) is same


@pytest.mark.parametrize(
    ("form", "values"),
    [("%s", []), ("", ["a"]), ("%d", ["a"]), ("%d", [True]), ("%s", [1]), ("%v", [[1]]), ("%v", [1.5]), ("%5d", [1]),
     ("%-d", [1]), ("%!", [1]), ("%", []), ("%t", [True]), ("%q", ["\n"]), ("%[1]d", [1]), ("%z", [1])],
)  # fmt: skip
def test_forms_of_sprintf_that_are_not_offered(form: str, values: list[Any]) -> None:
    with pytest.raises(go_text.FormNotOffered):
        go_text.sprintf(form, values)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("-0", 0), ("1ns", 1), ("1.5s", 1500000000), ("-1m", -60 * 10**9), ("+2h1ms", 7200001000000),
     (".5us", 500), ("1\u00b5s", 1000), ("", None), ("-", None), ("1", None), ("s", None), ("1s!", None)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int | None) -> None:
    assert go_text.parse_duration(text) == nanoseconds


def test_patterns_run_in_linear_time() -> None:
    assert go_text.regex_replace("a" * 50_000, "(a*)*b", "x") == "a" * 50_000
    assert go_text.regex_replace("ab", "(", "x") is None
    assert go_text.regex_replace("abc", "(?P<one>b)", "[${one}$$$1$2]") == "a[b$b]c"
    assert go_text.regex_split("", "abc") == ["a", "b", "c"]
    with pytest.raises(go_text.FormNotOffered):
        go_text.regex_replace("a" * 2000, "a", "x" * 1000)
    with pytest.raises(go_text.FormNotOffered):
        go_text.regex_find("a" * 5000, "a", 1)
