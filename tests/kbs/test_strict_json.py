"""The strict decoder against the lenient ones' sins, its caps at limit and limit + 1, encoder and canonical form."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kbs import strict_json
from kbs.errors import MalformedMessage, PayloadTooLarge, ServerFault
from kbs.strict_json import Limits, canonical, decode, encode

SCALARS = st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a:b", ":", '"', "\\", "[", "{"]
)
VALUES = st.recursive(
    SCALARS | NAMES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=30,
)
PLAIN = st.recursive(
    NAMES, lambda inner: st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=6), inner), max_leaves=20
)
FORCED = Limits(tokens=400, size=1 << 20)  # few enough tokens that ordinary texts take the exact path


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


MALFORMED = {
    "empty": b"",
    "blank": b" ",
    "NaN": b"NaN",
    "NaN inside": b'{"a":[NaN]}',
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "overflow": b"1e999",
    "negative overflow": b"[-1e999]",
    "64 digits that overflow": b"1" * 61 + b"e250",
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate": b'"\\udc00"',
    "swapped surrogates": b'"\\udc00\\ud800"',
    "high surrogate before a letter": b'"\\ud800a"',
    "lone surrogate in a name": b'{"\\ud800":1}',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "overlong UTF-8": b'"\xc0\x80"',
    "bad UTF-8": b'"\xff"',
    "bad UTF-8 in a name": b'{"\xff":1}',
    "cut UTF-8": b'["\xe2\x82"]',
    "bad octet outside": b"\xff",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "trailing text": b"{} x",
    "trailing NUL": b"{}\x00",
    "two values": b"{}{}",
    "control character": b'"\x01"',
    "newline in a string": b'"a\nb"',
    "bad escape": b'"\\x"',
    "bad hex escape": b'"\\u00zz"',
    "leading zero": b"01",
    "no fraction": b"1.",
    "no integer": b".5",
    "plus": b"+1",
    "minus": b"-",
    "hexadecimal": b"0x10",
    "trailing comma": b"[1,]",
    "trailing comma in an object": b'{"a":1,}',
    "no comma": b"[1 2]",
    "single quotes": b"{'a':1}",
    "bare name": b"{a:1}",
    "number as name": b"{1:1}",
    "comment": b"/**/1",
    "form feed": b"\x0c1",
    "no-break space": b"\xc2\xa01",
    "unclosed": b"[",
    "unclosed string": b'"abc',
    "closed otherwise": b"[1}",
    "escape outside": b'\\"',
    "literal": b"tru",
    "literal case": b"True",
    "duplicate": b'{"a":1,"a":2}',
    "duplicate, same value": b'{"a":1,"a":1}',
    "duplicate, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate deep": b'[[{"x":{"a":1,"b":2,"a":3}}]]',
    "duplicate object": b'{"a":{"b":1,"c":2},"a":1}',
    "duplicate hidden by an escaped colon": b'{"a":1,"a":2,"b":"\\u003a"}',
    "duplicate hidden by an escaped colon, upper case": b'{"a":1,"a":2,"b":"\\u003A"}',
    "duplicate among quotes": b'{"a\\"":1,"a\\"":2}',
    "duplicate empty name": b'{"":1,"":2}',
}


@pytest.mark.parametrize("limits", [strict_json.DEFAULT, Limits(tokens=40)], ids=["small", "exact"])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_text_is_refused(data: bytes, limits: Limits) -> None:
    with pytest.raises(MalformedMessage):
        decode(data, limits=limits)


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_text_within_a_large_body_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(b'["' + b"x" * 60_000 + b'",' + data + b"]")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\xf0\x9f\x98\x80"', "😀"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\u0000"', "\0"),
        (b' \t\r\n{"a" : [ ] }\n', {"a": []}),
        (b"-0.0", -0.0),
        (b"1E5", 100000.0),
        (b"1e-999", 0.0),
        (b"18446744073709551616", 2**64),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"9007199254740993", 2**53 + 1),
        (b'{"\\u003a":"\\u003A"}', {":": ":"}),
        (b'{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        (b'"\\\\"', "\\"),
        (b'["\\\\\\"", "\\""]', ['\\"', '"']),
    ],
)
def test_well_formed_text_decodes(data: bytes, value: object) -> None:
    for limits in (strict_json.DEFAULT, Limits(tokens=10)):
        decoded = decode(data, limits=limits)
        assert decoded == value
        assert type(decoded) is type(value)


def test_integers_stay_exact_and_floats_stay_floats() -> None:
    assert decode(b"9" * 64) == 10**64 - 1
    assert type(decode(b"1.0")) is float
    assert math.copysign(1, decode(b"-0.0")) == -1


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":', "}]")])
def test_depth_at_and_past_the_limit(opening: str, closing: str) -> None:
    levels = opening.count("[") + opening.count("{") - opening.count('"[')
    fits = 64 // levels
    text = opening * fits + "1" + closing * fits
    assert decode(text.encode()) is not None
    with pytest.raises(MalformedMessage, match="64"):
        decode(f"[{text}]".encode())


def test_depth_counts_nesting_and_not_brackets() -> None:
    assert len(decode(b"[" + b",".join([b"[]"] * 1000) + b"]")) == 1000
    assert decode(b'"' + b"[{" * 1000 + b'"') == "[{" * 1000
    assert decode(b'["\\"' + b"[" * 1000 + b'\\\\"]') == ['"' + "[" * 1000 + "\\"]


@pytest.mark.parametrize("count", [65, 100, 1000, 6400, 200_000])
def test_deep_bombs_are_refused(count: int) -> None:
    for data in (nested(count), b"[" * count, b'{"a":' * count, nested(count, "[{", "}]")):
        with pytest.raises(MalformedMessage):
            decode(data)


def test_tokens_at_and_past_the_limit() -> None:
    assert len(decode(b"[" + b",".join([b"1"] * 49_999) + b"]")) == 49_999
    for data in (
        b"[" + b",".join([b"1"] * 50_000) + b"]",
        b"[" + b",".join([b'""'] * 50_000) + b"]",
        b"{" + b",".join(b'"%d":1' % n for n in range(25_000)) + b"}",
        b"[" + b",".join([b"{}"] * 25_000) + b"]",
        b'"' * 1_000_000,
    ):
        with pytest.raises(MalformedMessage, match="50000 tokens"):
            decode(data)


def test_tokens_do_not_count_what_strings_hold() -> None:
    assert decode(b'"' + b",:[{" * 50_000 + b'"') == ",:[{" * 50_000
    assert decode(b'"' + b'\\",' * 50_000 + b'"') == '",' * 50_000


@pytest.mark.parametrize("form", [b"%b", b"-%b", b'{"a":[%b]}', b"[1,%b ]"])
def test_digits_at_and_past_the_limit(form: bytes) -> None:
    decode(form % (b"7" * 64))
    decode(form % (b"1." + b"7" * 63))
    decode(form % (b"1" * 62 + b"e-10"))
    for number in (b"7" * 65, b"1." + b"7" * 64, b"0." + b"0" * 64, b"1e" + b"0" * 64, b"9" * 6400):
        with pytest.raises(MalformedMessage, match="64 digits"):
            decode(form % number)


def test_digits_do_not_count_what_strings_hold() -> None:
    text = "0" * 1000
    assert decode(json.dumps({text: text}).encode()) == {text: text}


def test_size_at_and_past_the_limit() -> None:
    text = b'"' + b"x" * ((2 << 20) - 2) + b'"'
    assert len(decode(text)) == (2 << 20) - 2
    with pytest.raises(PayloadTooLarge):
        decode(text + b" ")
    assert decode(b"[1]", limits=Limits(size=3)) == [1]
    with pytest.raises(PayloadTooLarge):
        decode(b"[1] ", limits=Limits(size=3))


CANARY = "c4n4ry"


@pytest.mark.parametrize(
    "data",
    [
        b'{"c4n4ry":1,"c4n4ry":2}',
        b'"c4n4ry\xff"',
        b'{"c4n4ry":1e999}',
        b'"c4n4ry',
        b"[c4n4ry]",
        b'{"c4n4ry" 1}',
        b'"\\c4n4ry"',
    ],
)
def test_refusals_hold_no_input(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as refusal:
        decode(data)
    assert "JSON" in str(refusal.value)
    assert CANARY not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_refusals_say_where() -> None:
    with pytest.raises(MalformedMessage, match="near byte 4"):
        decode(b"[1, x]")


@given(VALUES)
def test_what_was_written_is_read(value: Any) -> None:
    assert decode(encode(value)) == value
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, indent=1, ensure_ascii=False).encode(), limits=FORCED) == value


@given(VALUES)
def test_both_ways_of_counting_agree_with_the_standard_library(value: Any) -> None:
    text = json.dumps(value).encode()
    assert decode(text) == decode(text, limits=Limits(tokens=max(len(text), 1))) == json.loads(text)


JSON_LIKE = st.text(st.sampled_from('[]{}:,"\\u0031aefn-+. \n'), max_size=40)


def lenient(data: bytes) -> Any:
    """The standard library's reading without duplicates, NaN, infinities and surrogates; ValueError otherwise."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    def finite(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError
        return float(text)

    def never(text: str) -> float:
        raise ValueError(text)

    value = json.loads(data.decode(), object_pairs_hook=unique, parse_float=finite, parse_constant=never)
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate fails here
    return value


@settings(max_examples=400)
@given(JSON_LIKE)
@example('{"a":1,"a":"\\u003a"}')
@example('{"\\\\":1,"\\\\":2}')
@example('["\\\\\\"[[[", {}]')
def test_accepts_exactly_what_a_careful_reader_of_the_standard_library_accepts(text: str) -> None:
    data = text.encode()
    try:
        expected = lenient(data)
    except ValueError:
        for limits in (strict_json.DEFAULT, Limits(tokens=64)):
            with pytest.raises(MalformedMessage):
                decode(data, limits=limits)
    else:
        assert decode(data) == decode(data, limits=Limits(tokens=64)) == expected


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_noise_raises_nothing_else(noise: bytes, cut: int) -> None:
    text = b'{"a":[1,-2.5e3,null,true,"\\u003a\\ud83d\\ude00"],"b":{"c":"\xc3\xa9"}}'
    for data in (noise, text[:cut] + noise + text[cut:], text[:cut]):
        for limits in (strict_json.DEFAULT, Limits(size=50, depth=2, tokens=4, digits=2)):
            try:
                decode(data, limits=limits)
            except (MalformedMessage, PayloadTooLarge):
                continue


def test_every_prefix_of_a_message_is_refused() -> None:
    text = json.dumps({"a": [1, {"b": "ü\n"}, None, "\\"], "c": -1.5e-3}).encode()
    decode(text)
    for length in range(len(text)):
        with pytest.raises(MalformedMessage):
            decode(text[:length])


# --- encode -----------------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


def test_encode_is_compact_utf8_in_the_order_given() -> None:
    assert encode({"b": [1, 2.5, None, True], "a": "ü/\u2028"}) == '{"b":[1,2.5,null,true],"a":"ü/\u2028"}'.encode()
    assert encode({Colour.RED: Colour.RED}) == b'{"red":"red"}'
    assert encode(2**70) == b"1180591620717411303424"


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {"a": -math.inf},
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {None: 2},
        (1, 2),
        {1},
        b"bytes",
        object(),
        {"a": [b"bytes"]},
    ],
)
def test_encode_refuses_what_is_not_json(value: object) -> None:
    with pytest.raises(ServerFault):
        encode(value)
    with pytest.raises(ServerFault):
        canonical(value)


def test_encode_refuses_depth_and_cycles() -> None:
    value: list[Any] = []
    for _ in range(199):
        value = [value]
    assert encode(value) == nested(200)
    with pytest.raises(ServerFault, match="deeper"):
        encode([value])
    cycle: dict[str, Any] = {}
    cycle["a"] = cycle
    for write in (encode, canonical):
        with pytest.raises(ServerFault):
            write(cycle)


# --- canonical --------------------------------------------------------------------------------------------------------


@given(PLAIN)
def test_the_fast_canonical_form_is_rfc8785(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(st.dictionaries(NAMES, SCALARS.filter(lambda v: not isinstance(v, int) or abs(v) < 2**53) | NAMES))
def test_the_general_canonical_form_is_rfc8785(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


def test_canonical_sorts_by_utf16_code_units() -> None:
    assert canonical({"\ue000": "", "😀": ""}) == '{"😀":"","\ue000":""}'.encode()


def test_canonical_escapes_every_control_character_as_rfc8785_does() -> None:
    text = "".join(map(chr, range(0xA0))) + "\u2028\ufeff\U0010ffff"
    assert canonical({"a": text}) == rfc8785.dumps({"a": text})


@pytest.mark.parametrize("number", [2**53, -(2**53), 10**30])
def test_integers_without_canonical_form_are_the_peers_fault(number: int) -> None:
    with pytest.raises(MalformedMessage):
        canonical({"a": number})
    assert canonical({"a": number // abs(number) * (2**53 - 1)})
