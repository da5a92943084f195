"""The key provider without a network: messages of every dialect, parameters, and where KEKs come from."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.images.errors import BrokerRefused, ImageError, KekRefused, KidRefused, PacketRefused, RequestRefused
from kbs.images.packet import parse_packet, unwrap
from kbs.images.provider import KeyProvider
from kbs.images.provider_keks import KekFolder, Keks, Registration
from kbs.images.provider_messages import Parameters, UnwrapRequest, WrapRequest, parse_parameters, parse_request
from kbs.secret import Secret

VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors/images/image-key-vectors.json").read_text())
CASES = {case["wrap_type"]: case for case in VECTORS["cases"]}
KEK = bytes.fromhex(VECTORS["kbs_resource"]["kek_hex"])
PLBCO = VECTORS["private_layer_block_cipher_options"]["json"].encode()
KID = VECTORS["kbs_resource"]["kid"]
PATH = "default/image-kek/vector-1"


def wrap_request(text: str | None, *, name: str = "attestation-agent", **changes: Any) -> bytes:
    request = json.loads(CASES["A256GCM"]["wrapkey_request_json"])
    values = [] if text is None else [base64.b64encode(text.encode()).decode()]
    request["keywrapparams"]["ec"]["Parameters"] = {name: values}
    return json.dumps(request | changes).encode()


def unwrap_request(packet: Any, text: str = "x") -> bytes:
    raw = packet if isinstance(packet, bytes) else json.dumps(packet).encode()
    return json.dumps(
        {
            "op": "keyunwrap",
            "keyunwrapparams": {
                "dc": {"Parameters": {"attestation-agent": [base64.b64encode(text.encode()).decode()]}},
                "annotation": base64.b64encode(raw).decode(),
            },
        }
    ).encode()


def packet_in(answer: Secret) -> bytes:
    return bytes(json.loads(answer.reveal())["keywrapresults"]["annotation"])


@pytest.fixture
def keypath(tmp_path: Path) -> Path:
    path = tmp_path / "kek.bin"
    path.write_bytes(KEK)
    return path


class FakeBroker:
    """Keeps what it is given, in order of the requests."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fails = False

    def store(self, path: str, kek: Secret, replace: bool) -> bool:
        self.requests.append(f"store {path}")
        if self.fails:
            raise BrokerRefused("the broker did not store it: 401")
        if path in self.stored and not replace:
            return False
        self.stored[path] = kek.reveal()
        return True

    def fetch(self, kid: str) -> Secret | None:
        self.requests.append(f"fetch {kid}")
        found = self.stored.get(kid.removeprefix("kbs:///"))
        return None if found is None else Secret(found)

    def registration(self, *, replace: bool = False) -> Registration:
        return Registration(self.store, "https://broker", replace)


# --- the vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_the_vectors(name: str, keypath: Path) -> None:
    case = CASES[name]
    provider = KeyProvider(Keks(), random=lambda _: bytes.fromhex(case["kek_iv_hex"]))
    text = f"keyid={KID}::keypath={keypath}::algorithm={name}"
    assert provider.answer(wrap_request(text)).reveal().decode() == case["wrapkey_response_json"]
    opening = KeyProvider(Keks(), only_kek=Secret(KEK))
    assert opening.answer(case["unwrapkey_request_json"].encode()).reveal().decode() == case["unwrapkey_response_json"]


@pytest.mark.parametrize("name", CASES)
def test_the_parameters_are_those_of_the_vectors(name: str) -> None:
    request = parse_request(CASES[name]["wrapkey_request_json"].encode())
    assert isinstance(request, WrapRequest)
    assert request.parameters == Parameters(KID, Path("/keys/kek.bin"), request.parameters.algorithm)
    assert request.parameters.algorithm.value == name
    assert request.plbco.reveal() == PLBCO


@pytest.mark.parametrize("case", VECTORS["negative"], ids=lambda case: case["name"])
def test_negative_vectors_are_refused(case: Any, tmp_path: Path) -> None:
    raw = bytes.fromhex(case["kek_hex"]) if "kek_hex" in case else case.get("kek_utf8", "").encode() or KEK
    (tmp_path / "kek").write_bytes(raw)
    packet = case["annotation_packet"]
    with pytest.raises((PacketRefused, KidRefused, KekRefused)):
        KeyProvider(Keks()).answer(unwrap_request(packet, f"keypath={tmp_path / 'kek'}"))


def test_the_published_kek_only_where_it_is_called_insecure() -> None:
    sample = VECTORS["sample_kek"]
    iv = bytes.fromhex(sample["iv_hex"])
    with pytest.raises(RequestRefused, match="insecure-sample-kek"):
        KeyProvider(Keks()).answer(wrap_request("sample=true"))
    provider = KeyProvider(Keks(), insecure_sample_kek=True, random=lambda _: iv)
    packet = packet_in(provider.answer(wrap_request("sample=true")))
    assert json.loads(packet)["wrapped_data"] == sample["wrapped_data_of_this_plbco_b64"]
    assert json.loads(packet)["kid"] == sample["kid"]
    assert bytes(json.loads(provider.answer(unwrap_request(packet)).reveal())["keyunwrapresults"]["optsdata"]) == PLBCO
    with pytest.raises(RequestRefused, match="insecure-sample-kek"):
        KeyProvider(Keks()).answer(unwrap_request(packet))


# --- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plbco", [base64.b64encode(PLBCO).decode(), list(PLBCO), PLBCO.decode()], ids=("base64", "integers", "text")
)
@pytest.mark.parametrize("empty", [None, {}, {"Parameters": {}}, {"Parameters": None}], ids=range(4))
def test_byte_strings_and_absences_of_every_kind(plbco: Any, empty: Any) -> None:
    ec = {"Parameters": {"attestation-agent": [list(b"keyid=a/b/c")]}, "DecryptConfig": empty}
    for unwrapping in (None, {}, {"dc": empty, "annotation": None}):
        message = {"op": "keywrap", "keywrapparams": {"ec": ec, "optsdata": plbco}, "keyunwrapparams": unwrapping}
        request = parse_request(json.dumps(message).encode())
        assert isinstance(request, WrapRequest)
        assert request.parameters == Parameters("a/b/c")
        assert request.plbco.reveal() == PLBCO


@pytest.mark.parametrize("empty", [None, {}, {"Parameters": {}}, "missing"], ids=("null", "empty", "none", "missing"))
def test_unwrapping_needs_no_parameters(empty: Any) -> None:
    packet = CASES["A256GCM"]["annotation_packet_json"].encode()
    for annotation in (base64.b64encode(packet).decode(), list(packet)):
        params = {"annotation": annotation} | ({} if empty == "missing" else {"dc": empty})
        request = parse_request(json.dumps({"op": "keyunwrap", "keyunwrapparams": params}).encode())
        assert request == UnwrapRequest(Parameters(), packet)


def test_a_provider_of_another_name() -> None:
    for name in ("attestation-agent", "kbs"):
        request = parse_request(wrap_request("keyid=a/b/c", name=name))
        assert isinstance(request, WrapRequest)
        assert request.parameters.keyid == "a/b/c"
    both = json.loads(wrap_request("keyid=a/b/c"))
    both["keywrapparams"]["ec"]["Parameters"]["other"] = [base64.b64encode(b"what=ever").decode()]
    found = parse_request(json.dumps(both).encode())
    assert isinstance(found, WrapRequest)
    assert found.parameters.keyid == "a/b/c"


def test_ocicrypts_word_for_nothing_is_no_parameter() -> None:
    assert parse_parameters("Enabled") == parse_parameters("") == Parameters()
    with pytest.raises(RequestRefused, match="keyid is missing"):
        KeyProvider(Keks()).answer(wrap_request("Enabled"))
    broker = FakeBroker()
    named = KeyProvider(Keks(registration=broker.registration()), default_kid="kbs:///a/b/c")
    named.answer(wrap_request(None))
    assert list(broker.stored) == ["a/b/c"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x=1", "unknown parameter x"),
        ("keyid=a/b/c::", "unknown parameter .empty."),
        ("keyid=a/b/c::kbs=http://x", "unknown parameter kbs"),
        ("keyid", "has no value"),
        ("keyid=", "has no value"),
        ("keyid=a/b/c::keyid=a/b/c", "given twice"),
        ("algorithm=A128GCM", "A256GCM, A256CTR"),
        ("sample=yes", "true or false"),
        ("sample=true::keyid=a/b/c", "leave keyid"),
        ("sample=true::keypath=x", "leave keyid"),
        ("keyid=a/b/c::keypath=a\0b", "no file name"),
        ("\x1b[31m=1", "unknown parameter"),
        ("enabled", "unknown parameter"),
    ],
    ids=range(13),
)
def test_parameters_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(RequestRefused, match=says) as caught:
        parse_parameters(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"op":"keywrap"}',
        b'{"op":"keywrap","op":"keywrap"}',
        b'{"op":"KeyWrap","keywrapparams":{}}',
        wrap_request("keyid=a/b/c", op=None),
        wrap_request("keyid=a/b/c", keywrapparams=[]),
        wrap_request("keyid=a/b/c", keywrapparams={"ec": "x", "optsdata": "e30="}),
        wrap_request(
            "keyid=a/b/c", keywrapparams={"ec": {"Parameters": {"attestation-agent": "x"}}, "optsdata": "e30="}
        ),
        wrap_request("keyid=a/b/c", keywrapparams={"optsdata": "%%"}),
        wrap_request("keyid=a/b/c", keywrapparams={"optsdata": [256]}),
        wrap_request("keyid=a/b/c", keywrapparams={"optsdata": [True]}),
        wrap_request("keyid=a/b/c", keywrapparams={"optsdata": 7}),
        b'{"op":"keyunwrap","keyunwrapparams":{"annotation":""}}',
        b'{"op":"keyunwrap","keyunwrapparams":{"annotation":"{}"}}',
        b" " * (1 << 20) + b"{}",
    ],
    ids=range(17),
)
def test_requests_that_are_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse_request(raw)


def test_an_image_has_one_key() -> None:
    request = json.loads(wrap_request("keyid=a/b/c"))
    request["keywrapparams"]["ec"]["Parameters"]["attestation-agent"] *= 2
    with pytest.raises(RequestRefused, match="one KEK"):
        parse_request(json.dumps(request).encode())


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ImageError):
        KeyProvider(Keks()).answer(noise)


@pytest.mark.parametrize("plbco", [b"x", b"{}", PLBCO.replace(b"symkey", b"symKey"), PLBCO[:-1]], ids=range(4))
def test_only_private_options_are_wrapped_and_not_repeated(plbco: bytes, keypath: Path) -> None:
    request = json.loads(wrap_request(f"keyid=a/b/c::keypath={keypath}"))
    request["keywrapparams"]["optsdata"] = base64.b64encode(plbco).decode()
    with pytest.raises(RequestRefused, match="optsdata") as caught:
        KeyProvider(Keks()).answer(json.dumps(request).encode())
    assert "QEFC" not in str(caught.value)


# --- where KEKs come from ---------------------------------------------------------------------------------------------


def test_one_kek_for_all_layers_of_an_image_and_another_for_the_next() -> None:
    broker = FakeBroker()
    provider = KeyProvider(Keks(registration=broker.registration()))
    packets = [packet_in(provider.answer(wrap_request(f"keyid={kid}"))) for kid in ("a/b/1", "kbs:///a/b/1", "a/b/2")]
    assert broker.requests == ["store a/b/1", "store a/b/2"]
    assert broker.stored["a/b/1"] != broker.stored["a/b/2"]
    for packet, path in zip(packets, ("a/b/1", "a/b/1", "a/b/2"), strict=True):
        assert unwrap(packet, Secret(broker.stored[path])).reveal() == PLBCO
    assert len({parse_packet(packet).iv for packet in packets}) == 3
    for packet in packets:
        provider.answer(unwrap_request(packet))


def test_nothing_is_wrapped_where_storing_fails_and_the_next_try_has_the_same_kek() -> None:
    broker = FakeBroker()
    broker.fails = True
    provider = KeyProvider(Keks(registration=broker.registration()))
    for _ in range(2):
        with pytest.raises(BrokerRefused):
            provider.answer(wrap_request("keyid=a/b/c"))
    broker.fails = False
    packet = packet_in(provider.answer(wrap_request("keyid=a/b/c")))
    assert unwrap(packet, Secret(broker.stored["a/b/c"])).reveal() == PLBCO
    assert broker.requests == ["store a/b/c"] * 3


def test_a_wrong_file_does_not_stand_in_the_way_of_the_right_one(tmp_path: Path, keypath: Path) -> None:
    broker = FakeBroker()
    broker.stored[PATH] = KEK
    provider = KeyProvider(Keks(registration=broker.registration(), fetch=broker.fetch))
    (tmp_path / "other").write_bytes(bytes(32))
    with pytest.raises(KekRefused, match="another KEK"):
        provider.answer(wrap_request(f"keyid={KID}::keypath={tmp_path / 'other'}"))
    provider.answer(wrap_request(f"keyid={KID}::keypath={keypath}"))
    assert broker.stored[PATH] == KEK


def test_another_kek_is_never_overwritten_unless_asked_to(keypath: Path) -> None:
    broker = FakeBroker()
    broker.stored[PATH] = bytes(32)
    text = f"keyid={KID}::keypath={keypath}"
    with pytest.raises(KekRefused, match="administrators cannot see"):
        KeyProvider(Keks(registration=broker.registration())).answer(wrap_request(text))
    with pytest.raises(KekRefused, match="is another KEK"):
        KeyProvider(Keks(registration=broker.registration(), fetch=broker.fetch)).answer(wrap_request(text))
    assert broker.stored[PATH] == bytes(32)
    KeyProvider(Keks(registration=broker.registration(replace=True))).answer(wrap_request(text))
    assert broker.stored[PATH] == KEK


def test_layers_of_one_name_with_two_files_are_refused(tmp_path: Path, keypath: Path) -> None:
    provider = KeyProvider(Keks())
    provider.answer(wrap_request(f"keyid=a/b/c::keypath={keypath}"))
    (tmp_path / "other").write_bytes(bytes(32))
    with pytest.raises(KekRefused, match="another KEK here"):
        provider.answer(wrap_request(f"keyid=a/b/c::keypath={tmp_path / 'other'}"))


def test_an_attested_guest_brings_the_kek_that_is_there() -> None:
    broker = FakeBroker()
    broker.stored[PATH] = KEK
    provider = KeyProvider(Keks(registration=broker.registration(), fetch=broker.fetch))
    assert unwrap(packet_in(provider.answer(wrap_request(f"keyid={KID}"))), Secret(KEK)).reveal() == PLBCO
    opened = KeyProvider(Keks(fetch=broker.fetch)).answer(unwrap_request(CASES["A256GCM"]["annotation_packet"]))
    assert bytes(json.loads(opened.reveal())["keyunwrapresults"]["optsdata"]) == PLBCO
    with pytest.raises(KekRefused, match="no KEK of the name"):
        KeyProvider(Keks(fetch=FakeBroker().fetch)).answer(unwrap_request(CASES["A256GCM"]["annotation_packet"]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: Keks(), "lost with this process"),
        (lambda _: Keks(one_layer=True), "a KEK of its own"),
        (lambda broker: Keks(one_layer=True, registration=broker.registration()), "second one could not tell"),
        (lambda broker: Keks(one_layer=True, fetch=broker.fetch), "a KEK of its own"),
    ],
    ids=range(4),
)
def test_a_kek_that_would_be_another_for_each_layer_is_not_made(make: Callable[[FakeBroker], Keks], says: str) -> None:
    broker = FakeBroker()
    with pytest.raises(KekRefused, match=says) as caught:
        KeyProvider(make(broker)).answer(wrap_request("keyid=a/b/c"))
    assert caught.value.next_step
    assert broker.stored == {}


def test_a_folder_keeps_keks_for_processes_of_one_layer(tmp_path: Path) -> None:
    broker, folder = FakeBroker(), tmp_path / "keys"

    def layer(keyid: str) -> bytes:
        keks = Keks(one_layer=True, registration=broker.registration(), folder=KekFolder(folder))
        return packet_in(KeyProvider(keks).answer(wrap_request(f"keyid={keyid}")))

    packets = [layer("a/b/c") for _ in range(3)]
    assert broker.requests == ["store a/b/c"]
    assert (folder / "keks/a/b/c").read_bytes() == broker.stored["a/b/c"]
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}
    assert all(unwrap(packet, Secret(broker.stored["a/b/c"])).reveal() == PLBCO for packet in packets)
    (folder / "keks/a/b/c").write_bytes(bytes(32))
    with pytest.raises(KekRefused, match="administrators cannot see"):
        layer("a/b/c")
    (folder / "keks/a/b/c").write_bytes(b"short")
    with pytest.raises(KekRefused, match="has 5"):
        layer("a/b/c")


def test_a_kek_that_could_not_be_stored_is_kept_for_the_next_try(tmp_path: Path) -> None:
    broker, folder = FakeBroker(), KekFolder(tmp_path / "keys")
    broker.fails = True
    with pytest.raises(BrokerRefused):
        Keks(one_layer=True, registration=broker.registration(), folder=folder).to_wrap("kbs:///a/b/c", None)
    broker.fails = False
    kept = (tmp_path / "keys/keks/a/b/c").read_bytes()
    Keks(one_layer=True, registration=broker.registration(), folder=folder).to_wrap("kbs:///a/b/c", None)
    assert broker.stored["a/b/c"] == kept


def test_layers_that_come_at_once_have_one_kek(tmp_path: Path) -> None:
    broker, packets = FakeBroker(), []
    provider = KeyProvider(Keks(registration=broker.registration(), folder=KekFolder(tmp_path / "keys")))

    def layer() -> None:
        packets.append(packet_in(provider.answer(wrap_request("keyid=a/b/c"))))

    threads = [threading.Thread(target=layer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broker.requests == ["store a/b/c"]
    assert [unwrap(packet, Secret(broker.stored["a/b/c"])).reveal() for packet in packets] == [PLBCO] * 8


@pytest.mark.parametrize("keyid", ["kbs://a/b/c", "a/b", "a/b/c/d", "kbs://host/a/b/c", "a/../c", "kbs:///a/b/c?x"])
def test_names_that_no_guest_could_ask_for(keyid: str, keypath: Path) -> None:
    with pytest.raises(KidRefused):
        KeyProvider(Keks()).answer(wrap_request(f"keyid={keyid}::keypath={keypath}"))


def test_what_is_told_holds_no_secret(keypath: Path) -> None:
    told: list[str] = []
    provider = KeyProvider(Keks(), tell=told.append)
    packet = packet_in(provider.answer(wrap_request(f"keyid={KID}::keypath={keypath}")))
    provider.answer(unwrap_request(packet, f"keypath={keypath}"))
    assert told == [f"wrapped a layer key with {KID}", f"unwrapped a layer key with {KID}"]
