"""SM2: the standard's own example, three implementations held against each other, and what no library should see."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import gmalg
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.hygon import sm2
from kbs.attestation.hygon.sm2 import N, P, PublicKey, Signature, by_gmalg, by_gmssl, is_signed_by, public_key
from kbs.errors import ChainInvalid

X = 0x09F9DF31_1E5421A1_50DD7D16_1E4BC5C6_72179FAD_1833FC07_6BB08FF3_56F35020
Y = 0xCCEA490C_E26775A5_2DC6EA71_8CC1AA60_0AED05FB_F35E084A_6632F607_2DA9AD13
PRIVATE = 0x3945208F_7B2144B1_3F36E38A_C6D39F95_88939369_2860B51A_42FB81EF_4DF7C5B8
EXAMPLE = Signature(
    0xF5A03B06_48D2C463_0EEAC513_E1BB81A1_5944DA38_27D5B741_43AC7EAC_EEE720B3,
    0xB1B6AA29_DF212FD8_763182BC_0D421CA1_BB9038FD_1F7F42D4_840B69C4_85BBC1AA,
)
MESSAGE = b"message digest"
KEY = public_key(X, Y, b"1234567812345678")
SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200") + b"\x04"
Check = Callable[[bytes, Signature, PublicKey], bool]

needs_gmssl = pytest.mark.skipif(
    importlib.util.find_spec("gmssl_pyx") is None, reason="no wheel of gmssl-pyx for this platform"
)
LIBRARIES = [pytest.param(by_gmalg, id="gmalg"), pytest.param(by_gmssl, id="gmssl", marks=needs_gmssl)]


def sign(message: bytes, user_id: bytes) -> Signature:
    r, s = gmalg.SM2(sk=PRIVATE.to_bytes(32, "big"), uid=user_id, pk=b"\x04" + KEY.point).sign(message)
    return Signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


@pytest.mark.parametrize("check", LIBRARIES)
def test_example_of_the_standard(check: Check) -> None:
    """GB/T 32918.5-2017, annex A.2."""
    assert check(MESSAGE, EXAMPLE, KEY)
    assert is_signed_by(MESSAGE, EXAMPLE, KEY)


@pytest.mark.parametrize("check", LIBRARIES)
@pytest.mark.parametrize(
    ("message", "signature", "key"),
    [
        (MESSAGE + b"\0", EXAMPLE, KEY),
        (b"", EXAMPLE, KEY),
        (MESSAGE, Signature(EXAMPLE.s, EXAMPLE.r), KEY),
        (MESSAGE, Signature(EXAMPLE.r ^ 1, EXAMPLE.s), KEY),
        (MESSAGE, Signature(EXAMPLE.r, N - EXAMPLE.s), KEY),
        (MESSAGE, Signature(N - EXAMPLE.s, EXAMPLE.s), KEY),  # t = 0
        (MESSAGE, Signature(1, 1), KEY),
        (MESSAGE, Signature(N - 1, N - 1), KEY),
        (MESSAGE, EXAMPLE, public_key(X, Y, b"1234567812345679")),
        (MESSAGE, EXAMPLE, public_key(X, Y, b"1")),
        (MESSAGE, EXAMPLE, public_key(X, P - Y, b"1234567812345678")),
    ],
)
def test_anything_else_is_not_signed(check: Check, message: bytes, signature: Signature, key: PublicKey) -> None:
    assert not check(message, signature, key)
    assert not is_signed_by(message, signature, key)


@pytest.mark.parametrize("check", LIBRARIES)
def test_a_signature_whose_point_is_at_infinity(check: Check) -> None:
    """The holder of a key can make s·G + t·P vanish: t = -s/d."""
    s = 12345
    t = -s * pow(PRIVATE, -1, N) % N
    assert not check(MESSAGE, Signature((t - s) % N, s), KEY)


@pytest.mark.parametrize("component", [0, N, N + EXAMPLE.r, 1 << 256, 1 << 575, -1])
def test_components_out_of_range_reach_no_library(component: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def untouched(*_: object) -> bool:
        raise AssertionError("a library was asked")

    monkeypatch.setattr(sm2, "_verify", untouched)
    assert not is_signed_by(MESSAGE, Signature(component, EXAMPLE.s), KEY)
    assert not is_signed_by(MESSAGE, Signature(EXAMPLE.r, component), KEY)


@pytest.mark.parametrize(
    ("x", "y"), [(0, 0), (X, Y + 1), (X + 1, Y), (Y, X), (X + P, Y), (X, Y + P), (P, Y), (-X, Y), (1 << 500, Y)]
)
def test_what_is_no_point_is_refused(x: int, y: int) -> None:
    with pytest.raises(ChainInvalid):
        public_key(x, y, b"id")


@pytest.mark.parametrize("user_id", [b"", bytes(255)])
def test_user_ids_of_no_usable_length_are_refused(user_id: bytes) -> None:
    with pytest.raises(ChainInvalid):
        public_key(X, Y, user_id)


@pytest.mark.parametrize("check", LIBRARIES)
@pytest.mark.parametrize("user_id", [b"H", b"HYGON-SSD-PEK", b"with\0zero", b"\xff" * 254])
def test_user_ids_of_any_kind(check: Check, user_id: bytes) -> None:
    key = public_key(X, Y, user_id)
    signature = sign(MESSAGE, user_id)
    assert check(MESSAGE, signature, key)
    assert not check(MESSAGE, signature, KEY)


@needs_gmssl
@settings(max_examples=8, deadline=None)
@given(message=st.binary(max_size=2000), user_id=st.binary(min_size=1, max_size=254), flip=st.integers(0, 511))
def test_libraries_agree(message: bytes, user_id: bytes, flip: int) -> None:
    key = public_key(X, Y, user_id)
    good = sign(message, user_id)
    bad = Signature(good.r ^ (1 << flip & (1 << 256) - 1), good.s ^ (1 << flip >> 256))
    assert by_gmalg(message, good, key)
    assert by_gmssl(message, good, key)
    if 0 < bad.r < N and 0 < bad.s < N:
        assert not by_gmalg(message, bad, key)
        assert not by_gmssl(message, bad, key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")
@pytest.mark.parametrize("user_id", ["1234567812345678", "HYGON-SSD-CEK"])
def test_openssl_agrees(tmp_path: Path, user_id: str) -> None:
    """A third implementation, from another house."""
    for name, content in {"key": SPKI_HEAD + KEY.point, "message": MESSAGE * 100}.items():
        (tmp_path / name).write_bytes(content)
    for good in (True, False):
        found = sign(MESSAGE * 100 if good else MESSAGE, user_id.encode())
        (tmp_path / "signature").write_bytes(encode_dss_signature(found.r, found.s))
        answer = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin", "-digest", "sm3",
             "-in", "message", "-sigfile", "signature", "-pkeyopt", f"distid:{user_id}"],
            cwd=tmp_path, capture_output=True, check=False, timeout=30,
        )  # fmt: skip
        assert (answer.returncode == 0) is good, answer.stderr
        assert is_signed_by(MESSAGE * 100, found, public_key(X, Y, user_id.encode())) is good


@given(data=st.binary(max_size=300))
def test_both_sm3_agree(data: bytes) -> None:
    """`gmalg` hashes for signatures, `cryptography` for registers."""
    ours = hashes.Hash(hashes.SM3())
    ours.update(data)
    theirs = gmalg.SM3()
    theirs.update(data)
    assert ours.finalize() == theirs.value()
