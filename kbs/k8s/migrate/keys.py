"""Keys that stay: the key of attestation tokens with its certificates, and the certificate of the listeners.

Both stay in the Secrets where they are: the new Pod mounts them from there. Their bytes are looked at, to know whether
the broker would start with them, and never written.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kbs.k8s.keys import service_hosts
from kbs.k8s.migrate.model import FileRef, Table, Verdict
from kbs.k8s.migrate.paths import Reading, is_certificates, locate, mount

KEEP: Final = "the key stays in its Secret, so who knows its certificate goes on believing tokens"
_FRESH: Final = "`kbs k8s keys` makes another key: tell whoever verifies tokens beside this broker"


def take_signer(signer: Table, reading: Reading) -> None:
    """`signer` of the token broker."""
    path, chain_path = signer.take("key_path", str), signer.take("cert_path", str)
    signer.drop(Verdict.NOT_OFFERED, "tokens bring their chain along, not an address of it", "cert_url")
    if path is None:
        return
    key = locate(reading.found, path)
    if key is None:
        why = f"{path} is not in a Secret of the input: {_FRESH}"
        signer.note("key_path", Verdict.BY_HAND, why)
        if chain_path is not None:
            signer.note("cert_path", Verdict.BY_HAND, "belongs to that key")
        return
    chain = None if chain_path is None else locate(reading.found, chain_path)
    keep_token_key(reading, key, chain, signer.source, signer.name("key_path"))
    if chain_path is not None:
        kept = chain is not None and "signer_chain" in reading.draft.settings.get("token", {})
        why = "goes into the header of tokens, as before" if kept else "tokens go without certificates, see key_path"
        signer.note("cert_path", Verdict.OURS if kept else Verdict.BY_HAND, why, "token.signer_chain" if kept else "")


def keep_token_key(reading: Reading, key: FileRef, chain: FileRef | None, source: str, setting: str) -> None:
    """Have the new broker sign with the key of the old one, if it is one that it can sign with."""
    draft = reading.draft
    problem = _token_key_problem(reading, key)
    if problem is not None:
        draft.note(source, setting, Verdict.REFUSED, f"{problem}: {_FRESH}")
        return
    draft.token_key = key
    reading.found.used.add((key.kind, key.name))
    draft.note(source, setting, Verdict.OURS, KEEP, f"keys.token from {key.kind} {key.name}, key {key.key}")
    if chain is None:
        return
    problem = _chain_problem(reading, key, chain)
    if problem is not None:
        draft.note(source, setting, Verdict.BY_HAND, f"without its certificates: {problem}")
    else:
        draft.set("token.signer_chain", mount(reading, chain))


def _token_key_problem(reading: Reading, key: FileRef) -> str | None:
    content = reading.found.content(key)
    if content is None:
        return f"{key.kind} {key.name} has no key {key.key}"
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return f"key {key.key} of {key.kind} {key.name} is no plain PEM private key"
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return None
    return f"key {key.key} of {key.kind} {key.name} is not EC P-256"


def _chain_problem(reading: Reading, key: FileRef, chain: FileRef) -> str | None:
    content, secret = reading.found.content(chain), reading.found.content(key)
    if content is None or secret is None or not is_certificates(content):
        return f"key {chain.key} of {chain.kind} {chain.name} holds no certificates"
    leaf = x509.load_pem_x509_certificates(content)[0]
    own = load_pem_private_key(secret, password=None).public_key()
    shapes = [each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in (own, leaf.public_key())]
    return None if shapes[0] == shapes[1] else "the first of them is for another key"


def keep_certificate(reading: Reading, certificate: FileRef, key: FileRef, source: str, setting: str) -> None:
    """Have the new listeners use the certificate of the old one, if guests and the controller can check it."""
    draft = reading.draft
    reading.found.used |= {(certificate.kind, certificate.name), (key.kind, key.name)}
    problem = _certificate_problem(reading, certificate, key)
    if problem is not None:
        why = (
            f"{problem}. `kbs k8s keys` makes another; guests need its CA in their init data. To stay with this CA, "
            "have it sign one for the names in the steps, and put it into the Secret kbs-tls"
        )
        draft.note(source, setting, Verdict.BY_HAND, why)
        return
    draft.tls = (certificate, key)
    has_ca = certificate.kind == "Secret" and "ca.crt" in reading.found.secret_keys(certificate.name)
    draft.tls_ca = FileRef("Secret", certificate.name, "ca.crt") if has_ca else certificate
    ours = f"server.tls_certificate from {certificate.kind} {certificate.name}"
    draft.note(source, setting, Verdict.OURS, "guests that know it go on", ours)


def read_tls(server: Table, reading: Reading) -> None:
    """`certificate` and `private_key` of `[http_server]`."""
    paths = {name: server.take(name, str) for name in ("certificate", "private_key")}
    given = [name for name, path in paths.items() if path is not None]
    if not given:
        return
    refs = [None if path is None else locate(reading.found, path) for path in paths.values()]
    decided = ("httpsSpec", "kbsHttpsCert")
    if any(each.setting.startswith(decided) for each in reading.draft.entries):
        for name in given:
            server.note(name, Verdict.OURS, "as the object of the operator says, see there")
    elif refs[0] is not None and refs[1] is not None:
        keep_certificate(reading, refs[0], refs[1], server.source, server.name("certificate"))
        server.note("private_key", Verdict.OURS, "goes with the certificate, see there")
    else:
        why = "not in Secrets of the input: `kbs k8s keys` makes another certificate; or put yours into Secret kbs-tls"
        for name in given:
            server.note(name, Verdict.BY_HAND, why)


def _certificate_problem(reading: Reading, certificate: FileRef, key: FileRef) -> str | None:
    content = reading.found.content(certificate)
    if content is None or not is_certificates(content):
        return f"{certificate.kind} {certificate.name} is not in the input, or has no certificate in {certificate.key}"
    if reading.found.content(key) is None:
        return f"{key.kind} {key.name} is not in the input, or has no key {key.key}"
    leaf = x509.load_pem_x509_certificates(content)[0]
    try:
        if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "the certificate is one of an authority, which guests refuse"
    except x509.ExtensionNotFound:
        pass
    admin = f"kbs-admin.{reading.draft.namespace}.svc"
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = set(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        named = set()
    return None if admin in named else f"the certificate does not name {admin}, which the controller calls"


def wanted_hosts(hosts: list[str], namespace: str) -> list[str]:
    """Names that a new certificate has beside those of our Services: how guests call the old one."""
    ours = set(service_hosts("kbs", namespace))
    forms = [f"{host}{domain}" for host in hosts for domain in ("", f".{namespace}", f".{namespace}.svc")]
    return [name for name in dict.fromkeys(forms) if name not in ours]
