"""Paths, places and lists: whatever is not exactly right leads nowhere."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from kbs.attestation.x509 import (
    MAX_CERTIFICATES,
    PathVerifier,
    common_name,
    is_issued_by,
    is_same_key,
    load_certificate,
    load_certificates,
    load_crl,
    read_revocation_list,
)
from kbs.errors import ChainInvalid, EndorsementExpired, EndorsementRevoked, EvidenceRejected

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CERT_SIGN, CRL_SIGN, NEITHER = "key_cert_sign", "crl_sign", ""
_serials = iter(range(1000, 100_000))


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_usage(*wanted: str) -> x509.KeyUsage:
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{bit: bit in wanted for bit in bits})


@dataclass
class Authority:
    """A key with its certificate."""

    key: Key
    certificate: x509.Certificate

    def issue(self, text: str, key: Key | None = None, **changes: Any) -> Authority:
        return make(text, self, key, **changes)

    def crl(self, *revoked: x509.Certificate, **changes: Any) -> bytes:
        return crl(self, revoked, **changes)


def make(
    text: str,
    issuer: Authority | None = None,
    key: Key | None = None,
    *,
    ca: bool | None = True,
    path_length: int | None = None,
    usage: tuple[str, ...] | None = (CERT_SIGN, CRL_SIGN),
    days: tuple[int, int] = (-100, 100),
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Authority:
    own = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(name(issuer.certificate.subject.rfc4514_string()[3:] if issuer else text), name(text))
        .public_key(own.public_key())
        .serial_number(next(_serials))
        .not_valid_before(AT + days[0] * DAY)
        .not_valid_after(AT + days[1] * DAY)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if usage is not None:
        builder = builder.add_extension(key_usage(*usage), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Authority(own, builder.sign(issuer.key if issuer else own, SHA256()))


def crl(
    issuer: Authority,
    revoked: tuple[x509.Certificate, ...] = (),
    *,
    days: tuple[int, int] = (-1, 30),
    signer: Key | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ((x509.CRLNumber(7), False),),
) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, AT + days[0] * DAY, AT + days[1] * DAY)
    for each in revoked:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(each.serial_number, AT - DAY).build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer or issuer.key, SHA256()).public_bytes(Encoding.DER)


ROOT = make("root")
MIDDLE = ROOT.issue("middle", path_length=1)
LOW = MIDDLE.issue("low", path_length=0)
LEAF = LOW.issue("leaf", ca=False, usage=("digital_signature",))
CHAIN = (MIDDLE.certificate, LOW.certificate)


def verify(leaf: Authority, *intermediates: x509.Certificate, at: datetime = AT, **rules: Any) -> Any:
    return PathVerifier([ROOT.certificate], **rules).verify(leaf.certificate, intermediates, at)


def test_a_path_is_found_in_any_order() -> None:
    for order in (CHAIN, CHAIN[::-1], (*CHAIN, ROOT.certificate, LEAF.certificate)):
        path = verify(LEAF, *order)
        assert [common_name(each.subject) for each in path.certificates] == ["leaf", "low", "middle", "root"]
        assert path.leaf == LEAF.certificate
        assert path.issuer == LOW.certificate


def test_a_second_edition_of_the_root_in_the_bundle_is_not_needed_and_not_trusted() -> None:
    edition = make("root", key=ROOT.key, days=(-200, -50))
    assert is_same_key(edition.certificate, ROOT.certificate)
    assert verify(LEAF, *CHAIN, edition.certificate).certificates[-1] == ROOT.certificate
    stranger = make("root")
    assert not is_same_key(stranger.certificate, ROOT.certificate)
    alone = stranger.issue("leaf", ca=False)
    with pytest.raises(ChainInvalid):
        verify(alone, stranger.certificate)


def test_an_anchor_is_no_leaf() -> None:
    with pytest.raises(ChainInvalid):
        verify(ROOT)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_link_leads_nowhere(missing: int) -> None:
    with pytest.raises(ChainInvalid, match="pinned root"):
        verify(LEAF, CHAIN[missing])


def test_a_renewed_intermediate_is_chosen_by_date() -> None:
    old = ROOT.issue("ca", days=(-90, -10))
    new = ROOT.issue("ca", old.key, days=(-20, 50))
    leaf = old.issue("leaf", ca=False)
    for bundle in ((old, new), (new, old)):
        certificates = [each.certificate for each in bundle]
        assert verify(leaf, *certificates).issuer == new.certificate
        assert verify(leaf, *certificates, at=AT - 30 * DAY).issuer == old.certificate


@pytest.mark.parametrize("which", range(3))
def test_each_certificate_must_be_valid_at_the_moment(which: int) -> None:
    days = [(-100, 100)] * 3
    days[which] = (-10, 10)
    root = make("root", days=days[0])
    middle = root.issue("middle", days=days[1])
    leaf = middle.issue("leaf", ca=False, days=days[2])
    verifier = PathVerifier([root.certificate])
    for moment in (AT - 10 * DAY, AT + 10 * DAY):
        assert verifier.verify(leaf.certificate, [middle.certificate], moment).leaf == leaf.certificate
    for moment in (AT - 10 * DAY - timedelta(seconds=1), AT + 10 * DAY + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            verifier.verify(leaf.certificate, [middle.certificate], moment)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
PURPOSE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
CONSTRAINTS = x509.NameConstraints([x509.DNSName("example.com")], None)


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": False},
        {"ca": None},
        {"usage": ("digital_signature",)},
        {"extensions": ((UNKNOWN, True),)},
        {"extensions": ((PURPOSE, True),)},
        {"extensions": ((CONSTRAINTS, False),)},
    ],
    ids=["no ca", "no constraints", "may not sign", "unknown critical", "purpose", "name constraints"],
)
def test_an_unfit_intermediate_leads_nowhere(changes: dict[str, Any]) -> None:
    middle = ROOT.issue("middle", **changes)
    with pytest.raises(ChainInvalid):
        verify(middle.issue("leaf", ca=False), middle.certificate)


def test_unknown_non_critical_and_announced_critical_extensions_pass() -> None:
    middle = ROOT.issue("middle", extensions=((UNKNOWN, False),))
    leaf = middle.issue("leaf", ca=False, extensions=((PURPOSE, True),))
    with pytest.raises(ChainInvalid, match=r"2\.5\.29\.37"):
        verify(leaf, middle.certificate)
    assert verify(
        leaf, middle.certificate, critical=frozenset({ExtensionOID.EXTENDED_KEY_USAGE.dotted_string})
    ).certificates


def test_path_lengths_are_kept() -> None:
    below = LOW.issue("too deep")  # LOW allows no CA below itself
    with pytest.raises(ChainInvalid):
        verify(below.issue("leaf", ca=False), *CHAIN, below.certificate)


def test_no_path_is_longer_than_six() -> None:
    authorities = [ROOT]
    for number in range(5):
        authorities.append(authorities[-1].issue(f"ca {number}"))
    certificates = [each.certificate for each in authorities[1:]]
    assert len(verify(authorities[4].issue("leaf", ca=False), *certificates).certificates) == 6
    with pytest.raises(ChainInvalid):
        verify(authorities[5].issue("leaf", ca=False), *certificates)


def test_a_maze_of_equal_names_ends() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    ring = [make("ring", Authority(key, make("ring", key=key).certificate), key).certificate for _ in range(14)]
    leaf = Authority(key, ring[0]).issue("leaf", ca=False)
    with pytest.raises(ChainInvalid, match="too many ways"):
        verify(leaf, *ring)
    with pytest.raises(ChainInvalid, match="too many certificates"):
        verify(leaf, *ring, *ring)


def test_weak_keys_are_refused() -> None:
    weak = make("weak", ROOT, rsa.generate_private_key(65537, 1024))
    with pytest.raises(ChainInvalid):
        verify(weak.issue("leaf", ca=False), weak.certificate)
    odd = make("odd", ROOT, ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(ChainInvalid):
        verify(odd.issue("leaf", ca=False), odd.certificate)


SLOW_KEYS = {  # OpenSSL takes both; one signature costs milliseconds, and a stranger may have dozens checked
    "exponent as long as the modulus": rsa.RSAPublicNumbers((1 << 3070) + 1, (1 << 3071) + 3),
    "modulus of 16384 bits": rsa.RSAPublicNumbers((1 << 63) + 1, (1 << 16383) + 3),
    "modulus of 8200 bits": rsa.RSAPublicNumbers(65537, (1 << 8199) + 3),
}


@pytest.mark.parametrize("numbers", SLOW_KEYS.values(), ids=SLOW_KEYS)
def test_keys_that_cost_too_much_are_not_asked(numbers: rsa.RSAPublicNumbers) -> None:
    ring = make("ring")
    builder = x509.CertificateBuilder(name("ring"), name("ring"), numbers.public_key(), 5).not_valid_before(AT - DAY)
    builder = builder.not_valid_after(AT + DAY).add_extension(x509.BasicConstraints(True, None), critical=True)
    slow = builder.sign(ring.key, SHA256())
    asked: list[bool] = []
    leaf = ring.issue("leaf", ca=False).certificate

    class Watched:
        signature_hash_algorithm = SHA256()

        def verify_directly_issued_by(self, issuer: x509.Certificate) -> None:
            asked.append(True)

    assert not is_issued_by(Watched(), slow)  # type: ignore[arg-type] # all that is asked of it
    assert not asked
    with pytest.raises(ChainInvalid):
        verify(Authority(ring.key, leaf), slow)


def known(verifier: PathVerifier) -> int:
    """How many chains it remembers."""
    return len(verifier._known)


def test_one_chain_in_many_wraps_is_remembered_once() -> None:
    """A genuine chain is no secret: what anybody can put around it must not push other chains out of the memory."""
    verifier = PathVerifier([ROOT.certificate])
    edition = make("root", key=ROOT.key, days=(-200, -50)).certificate
    for bundle in (CHAIN, CHAIN[::-1], (*CHAIN, *CHAIN), (*CHAIN[::-1], *CHAIN)):
        verifier.verify(LEAF.certificate, bundle, AT)
        assert known(verifier) == 1
    verifier.verify(LEAF.certificate, (*CHAIN, ROOT.certificate), AT)
    verifier.verify(LEAF.certificate, (*CHAIN, edition), AT)
    assert known(verifier) == 3, "roots, as real chains carry them, are no strangers"
    copied = make("root", key=ROOT.key, days=(-9, 9)).certificate
    forged = x509.load_der_x509_certificate(copied.public_bytes(Encoding.DER)[:-1] + b"\1")
    for stranger in (make("stranger").certificate, make("root").certificate, LEAF.issue("below").certificate, forged):
        for _ in range(2):
            assert verifier.verify(LEAF.certificate, (*CHAIN, stranger), AT).leaf == LEAF.certificate
    assert known(verifier) == 3


def test_paths_are_found_whatever_the_time() -> None:
    old = ROOT.issue("ca", days=(-90, -10))
    leaf = old.issue("leaf", ca=False)
    verifier = PathVerifier([ROOT.certificate])
    assert [path.leaf for path in verifier.find(leaf.certificate, [old.certificate])] == [leaf.certificate]
    with pytest.raises(EndorsementExpired):
        verifier.verify(leaf.certificate, [old.certificate], AT)
    with pytest.raises(ChainInvalid):
        verifier.find(leaf.certificate, [])


def test_any_flipped_bit_of_any_certificate_is_refused() -> None:
    """Flips in the outer, unsigned copy of the algorithm do not parse; all others break a signature or a name."""
    chosen = random.Random(7)
    parts = [LEAF.certificate, *CHAIN]
    good = verify(LEAF, *CHAIN).certificates
    for _ in range(300):
        which = chosen.randrange(3)
        data = bytearray(parts[which].public_bytes(Encoding.DER))
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        try:
            changed = [*parts[:which], load_certificate(bytes(data)), *parts[which + 1 :]]
        except ValueError:
            continue
        with pytest.raises(EvidenceRejected):
            assert PathVerifier([ROOT.certificate]).verify(changed[0], changed[1:], AT).certificates == good


def test_a_list_speaks_for_its_issuer_only() -> None:
    revoked = LOW.crl(LEAF.certificate)
    found = read_revocation_list(revoked, LOW.certificate)
    assert (found.number, found.serials) == (7, frozenset([LEAF.certificate.serial_number]))
    with pytest.raises(EndorsementRevoked):
        found.check([1, LEAF.certificate.serial_number], AT)
    found.check([1, 2], AT)
    with pytest.raises(ChainInvalid):
        read_revocation_list(revoked, MIDDLE.certificate)
    with pytest.raises(ChainInvalid):
        read_revocation_list(LOW.crl(signer=MIDDLE.key), LOW.certificate)


def test_a_list_is_used_within_its_dates_only() -> None:
    found = read_revocation_list(LOW.crl(days=(-1, 1)), LOW.certificate)
    for moment in (AT - DAY, AT + DAY):
        found.check([], moment)
    for moment in (AT - DAY - timedelta(seconds=1), AT + DAY + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            found.check([], moment)


def test_a_part_of_a_list_is_no_list() -> None:
    with pytest.raises(ChainInvalid, match="critical"):
        read_revocation_list(LOW.crl(extensions=((x509.DeltaCRLIndicator(1), True),)), LOW.certificate)


def test_who_may_not_sign_lists_signs_none() -> None:
    low = MIDDLE.issue("low", usage=(CERT_SIGN,))
    with pytest.raises(ChainInvalid, match="may not sign"):
        read_revocation_list(low.crl(), low.certificate)


def tagged(tag: int, content: bytes) -> bytes:
    """DER of less than 64 KiB."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([129, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def without_end(crl: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The list again, signed, without nextUpdate, which no builder leaves out."""
    body = x509.load_der_x509_crl(crl).tbs_certlist_bytes
    at = body.index(b"\x17\x0d", body.index(b"\x17\x0d") + 1)
    body = tagged(0x30, body[body.index(b"\x02\x01\x01") : at] + body[at + 15 :])
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    return tagged(0x30, body + algorithm + tagged(3, b"\0" + key.sign(body, ec.ECDSA(SHA256()))))


def test_a_list_without_an_end_would_be_good_for_ever() -> None:
    assert isinstance(LOW.key, ec.EllipticCurvePrivateKey)
    endless = without_end(LOW.crl(LEAF.certificate), LOW.key)
    assert load_crl(endless).next_update_utc is None
    with pytest.raises(ChainInvalid, match="no end"):
        read_revocation_list(endless, LOW.certificate)


def test_an_issuer_with_an_unusable_key_signs_no_lists() -> None:
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())):
        weak = make("weak", key=key)
        with pytest.raises(ChainInvalid, match="unusable key"):
            read_revocation_list(weak.crl(), weak.certificate)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbs.attestation.x509._CACHE_SIZE", 2)
    verifier = PathVerifier([ROOT.certificate])
    leaves = [LOW.issue("leaf", ca=False).certificate for _ in range(4)]
    for leaf in leaves:
        verifier.verify(leaf, CHAIN, AT)
    assert known(verifier) == 2


@pytest.mark.parametrize("data", [b"", b"\x30\x00", LOW.crl()[:-1], LOW.crl() + b"\0"])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="revocation list"):
        load_crl(data)
    with pytest.raises(ChainInvalid):
        read_revocation_list(data, LOW.certificate)


def test_a_serial_number_below_zero_in_a_key_identifier_is_no_warning() -> None:
    """`cryptography` warns of it when extensions are first read, and warnings must not escape a verifier."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier(b"k" * 20, [x509.DirectoryName(name("issuer"))], 0x1122334455667788)
    der = make("identified", None, key, extensions=((identifier, False),)).certificate.public_bytes(Encoding.DER)
    negative = der.replace(bytes.fromhex("82081122334455667788"), bytes.fromhex("8208f122334455667788"))
    assert negative != der
    assert len(load_certificate(negative).extensions) == len(load_certificate(der).extensions)


def test_extensions_that_do_not_parse_are_refused_when_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    broken = x509.UnrecognizedExtension(ExtensionOID.KEY_USAGE, b"\x02\x01\x01")
    for extra in ((broken, False), (x509.UnrecognizedExtension(ExtensionOID.BASIC_CONSTRAINTS, b""), True)):
        der = make("broken", None, key, extensions=(extra,), usage=None, ca=None).certificate.public_bytes(Encoding.DER)
        with pytest.raises(ValueError):
            load_certificate(der)


def test_names_are_read_with_their_certificate() -> None:
    """Whether they parse is found out when a certificate is loaded, and not by whoever asks first."""
    der = LEAF.certificate.public_bytes(Encoding.DER)
    for text in (b"leaf", b"low"):
        at = der.index(text)
        with pytest.raises(ValueError, match=r"X\.509 certificate"):
            load_certificate(der[:at] + b"\xff" + der[at + 1 :])


def test_names_that_the_library_warns_of_are_no_warning() -> None:
    """Attestation keys of some clouds have organizational units of more than 64 characters."""
    der = LOW.certificate.public_bytes(Encoding.DER)
    as_country = bytes.fromhex("550406")  # a country has two letters, and neither name has
    changed = der.replace(bytes.fromhex("550403"), as_country)
    assert changed.count(as_country) == 2
    assert common_name(load_certificate(changed).issuer) == ""
    crl = LOW.crl().replace(bytes.fromhex("550403"), as_country)
    with pytest.raises(ChainInvalid, match="another issuer"):
        read_revocation_list(crl, LOW.certificate)


def test_bundles_are_certificates_and_nothing_else() -> None:
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in CHAIN)
    assert load_certificates(pem) == CHAIN
    assert load_certificates(CHAIN[0].public_bytes(Encoding.DER)) == CHAIN[:1]
    one = CHAIN[0].public_bytes(Encoding.PEM)
    for bad in (b"", b"text\n" + pem, pem + b"text", pem[:-5], one * (MAX_CERTIFICATES + 1), one.replace(b"M", b"-")):
        with pytest.raises(ValueError, match=r"certificate|bundle"):
            load_certificates(bad)
    assert len(load_certificates(one * MAX_CERTIFICATES)) == MAX_CERTIFICATES
