"""All differences that are known, by implementation; `docs/verifiers/cross-checks.md` shows them as tables.

Order matters: the first that fits explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.crosscheck.opinions import Difference

ACCEPTED: Final = "^accepted"

DCAP_QVL: Final = (
    Difference(
        "trailing bytes",
        "bytes behind its signature section",
        ACCEPTED,
        "It does not look at what follows a quote; we take zeros only, and those only where they pad",
    ),
    Difference("PCEID", "TCB info is not that of the platform", ACCEPTED, "It compares the FMSPC and not the PCEID"),
    Difference(
        "signer of TCB info and QE identity",
        "collateral is not signed by a TCB signing certificate",
        ACCEPTED,
        "It lets any certificate under the root sign them, so also a platform's own; Intel names one for it",
    ),
    Difference(
        "members of TCB info and QE identity",
        "(TCB info|QE identity) does not parse|has a level without TDX components",
        ACCEPTED,
        "It does not read dates of levels and what else no decision needs; we refuse a document of a wrong form",
    ),
    Difference(
        "reserved bytes",
        "enclave report has a reserved byte set",
        ACCEPTED,
        "It does not look at reserved bytes of enclave reports, which must be zero (Intel SDM vol. 3D)",
    ),
    Difference(
        "PEM",
        "(issuer chain of the collateral|PCK certificate chain|a certificate of the chain) does not parse",
        ACCEPTED,
        "It skips PEM blocks it cannot read and certificates it does not need; we read all of a chain or none",
    ),
    Difference(
        "dates of the root",
        "EndorsementExpired: a certificate of the chain",
        ACCEPTED,
        "A trust anchor has no dates for it; ours must be valid as well",
    ),
    Difference(
        "type of certification data",
        "certification data of a type other than",
        ACCEPTED,
        "It reads the PCK chain whatever type the outer structure claims",
    ),
    Difference(
        "QE attributes outside their mask",
        "quoting enclave runs with attributes",
        ACCEPTED,
        "It applies the mask to the expected value too; a value with bits outside its mask contradicts itself",
    ),
    Difference(
        "debug",
        ACCEPTED,
        "Debug mode is enabled",
        "With us a claim (`td_attributes.debug`, `attributes.debug`): the default policy never affirms it",
    ),
    Difference(
        "profiling",
        ACCEPTED,
        "TD profiling is enabled",
        "With us a claim (`td_attributes.profiling`): the default policy never affirms it",
    ),
    Difference(
        "migration",
        ACCEPTED,
        "TD migration is enabled",
        "With us a claim (`td_attributes.migratable`): the default policy never affirms it",
    ),
    Difference(
        "relaunch with a module of version 0",
        "^accepted.*'OutOfDate",
        "^accepted.*'TDRelaunchAdvised",
        "It advises a relaunch after any change of module; we where the TDX module is what is out of date",
    ),
    Difference(
        "white space around documents",
        "^accepted: white space",
        "Signature is invalid for (tcb_info|qe_identity)",
        "We verify the JSON value without the white space around it; white space inside counts for both",
    ),
    Difference(
        "list of the future",
        "EndorsementExpired: the revocation list",
        ACCEPTED,
        "It compares nextUpdate and not thisUpdate",
    ),
    Difference(
        "SEPT_VE_DISABLE",
        ACCEPTED,
        "SEPT_VE_DISABLE is not enabled",
        "With us a claim (`td_attributes.septve_disable`): a policy decides",
    ),
    Difference(
        "last second of a list",
        ACCEPTED,
        "CrlExpired",
        "At exactly nextUpdate a list is valid for us and expired for it; one second later for both",
    ),
    Difference(
        "authentication data of the QE",
        ACCEPTED,
        "Invalid QE auth data length",
        "It wants the 32 bytes that Intel's own quoting enclaves write; the format has a length",
    ),
    Difference(
        "order of the PCK chain",
        ACCEPTED,
        "CaUsedAsEndEntity",
        "It takes the first certificate for the leaf; some quoting libraries write the chain the other way round",
    ),
    Difference(
        "SVN of a TDX module above 255",
        ACCEPTED,
        "Failed to decode TcbInfo[^|]*expected u8",
        "It reads the isvsvn of module levels as one byte; for us no module reaches such a level",
    ),
    Difference(
        "PCESVN above 32767",
        ACCEPTED,
        "PceSvn length mismatch",
        "DER needs three bytes for it, and it expects at most two",
    ),
    Difference(
        "version of SGX quotes",
        ACCEPTED,
        "SGX TEE quote must have version 3",
        "It knows SGX enclaves in quotes of version 3 only; Intel defines them in 4 and 5",
    ),
)

GO_TDX_GUEST: Final = (
    *(each for each in DCAP_QVL if each.name in ("trailing bytes", "reserved bytes", "list of the future")),
    Difference(
        "members of TCB info and QE identity",
        "(TCB info|QE identity) does not parse|has a level without TDX components",
        ACCEPTED,
        "Go's JSON fills absent members with zeros: a missing SVN is met by any platform; we refuse",
    ),
    Difference(
        "root on its own list",
        "EndorsementRevoked",
        ACCEPTED,
        "It looks for the PCK CA and the signers of the documents on the root's list, and not for the root itself",
    ),
    Difference(
        "vendor of the QE",
        "unknown quoting enclave vendor",
        ACCEPTED,
        "It does not look at the vendor id in the header; what follows it is only defined for Intel's",
    ),
    Difference(
        "reserved TD attributes",
        "reserved TD attribute set",
        ACCEPTED,
        "It leaves TD attributes to its `validate` package, which wants to be told what they must be",
    ),
    Difference(
        "bytes behind a list",
        "the revocation list does not parse",
        ACCEPTED,
        "Go's parser ignores what follows a revocation list",
    ),
    Difference(
        "issuer chain of the PCK list",
        ACCEPTED,
        "unable to receive PCK CRL: could not (parse|interpret)",
        "We verify the list with the CA of the quote's own chain and do not need this one",
    ),
    Difference(
        "root that comes along",
        ACCEPTED,
        "(root cert|Intermediate CA certificate|root certificate in the issuer chain): ",
        "We replace a root that evidence or collateral brings along by the pinned one; it must match for it",
    ),
    Difference(
        "certificates in the PCK chain",
        ACCEPTED,
        "incomplete PCK Certificate chain|trailing bytes were found in PCK|PCK certificate extensions length",
        "It wants exactly leaf, CA and root in this order; we find a path to the pinned root among those given",
    ),
    Difference(
        "letters of the FMSPC",
        ACCEPTED,
        "^refused: FMSPC from PCK Certificate",
        "It compares hexadecimal text, so upper case differs from lower case; we compare the bytes",
    ),
)

GO_SEV_GUEST: Final = (
    Difference(
        "spare TCB components",
        ACCEPTED,
        "no extension for field Spl",
        "It wants the spare components 4 to 7 in the certificate; we want them to be zero where they are there",
    ),
    Difference("Turin", ACCEPTED, "not an AMD KDS OID", "It does not know the extension for the FMC, which Turin has"),
    Difference(
        "last second of a list",
        ACCEPTED,
        "could not fetch product CRL",
        "At exactly nextUpdate a list is valid for us and has to be fetched anew for it",
    ),
    Difference(
        "list of the future",
        "EndorsementExpired: AMD revocation list",
        ACCEPTED,
        "It compares nextUpdate and not thisUpdate",
    ),
    Difference(
        "bytes behind a list",
        "AMD revocation list does not parse",
        ACCEPTED,
        "Go's parser ignores what follows a revocation list",
    ),
    Difference(
        "what a list names",
        "EndorsementRevoked",
        ACCEPTED,
        "It looks for the ASK only; we for the key, its intermediate and the ARK",
    ),
    Difference(
        "revoked ASK over a VLEK",
        ACCEPTED,
        "ASK was revoked",
        "It looks for the ASK whatever signed the report; a VLEK hangs from the ASVK",
    ),
    Difference(
        "mitigation vectors",
        "mitigation vectors before version 5",
        ACCEPTED,
        "It reads them in every version; before version 5 they are reserved bytes",
    ),
    Difference("masked chip key", "masks the chip key", ACCEPTED, "It leaves MASK_CHIP_KEY to the caller"),
    Difference(
        "VMPL", "of a VMPL that does not exist|requested by the host", ACCEPTED, "It takes any VMPL unless told which"
    ),
    Difference(
        "author key",
        "author key of the SNP report contradicts",
        ACCEPTED,
        "It does not compare AUTHOR_KEY_EN with the digest of the author key",
    ),
    Difference(
        "product of the certificate",
        "certificate is of another product",
        ACCEPTED,
        "From version 3 on it goes by the report's CPUID and does not read the product name in the certificate",
    ),
    Difference(
        "chip id under a VLEK",
        "signed with a VLEK names a chip",
        ACCEPTED,
        "It does not look at the chip id of reports that a provider's key signed",
    ),
    Difference(
        "provider of a VLEK",
        "VLEK of a provider that is not allowed",
        ACCEPTED,
        "It takes the VLEK of any provider; we those that a setting names",
    ),
    Difference(
        "stepping",
        ACCEPTED,
        "report signature verification error",
        "It packs CPUID into a word and loses the upper half of the stepping, so that the signed bytes change",
    ),
    Difference(
        "models",
        ACCEPTED,
        "could not be verified by any trusted roots. Last error: <nil>",
        "It knows the first models of a family; we the ranges that AMD gives to each product",
    ),
    Difference(
        "product names before version 3",
        ACCEPTED,
        "unknown (product name|AMD SEV product)",
        "It has a list of steppings; we read the product without its stepping",
    ),
)
GO_EVENTLOG: Final = (
    Difference(
        "two separators",
        "two separators in one register",
        ACCEPTED,
        "It allows any number; what stands behind the first is not the work of firmware. A setting takes older OVMF's",
    ),
    Difference(
        "behind the end",
        "event log (has something behind its end|ends inside an entry)",
        ACCEPTED,
        "It stops at the padding and does not look at what follows; we allow zeros and ones only",
    ),
    Difference(
        "first event",
        "does not begin with a Specification ID event",
        ACCEPTED,
        "It does not look at the digest of the Specification ID event, which is zero",
    ),
    Difference(
        "minor version",
        ACCEPTED,
        "invalid spec (minor|errata) version",
        "It wants 2.0 in the Specification ID event; we any 2.x, since minor versions do not change the layout",
    ),
    Difference(
        "register without events",
        "event log has no events of (register|PCR)",
        ACCEPTED,
        "It skips a register that has no events, whatever its value; for us it must have its start value",
    ),
    Difference(
        "entry without a digest",
        "entry without a digest of the quoted registers' algorithm",
        ACCEPTED,
        "It lets an EV_NO_ACTION entry have no digest; every entry has one of each algorithm of the log",
    ),
    Difference(
        "zeros behind the end",
        "^accepted: ends in zeros",
        "EOF|failed to replay",
        "Some firmware fills the log's area with zeros instead of ones, which it takes for events",
    ),
)
GO_ATTESTATION: Final = (
    Difference(
        "bytes behind quote or signature",
        "is followed by other octets",
        ACCEPTED,
        "It does not look at what follows TPMS_ATTEST and TPMT_SIGNATURE",
    ),
    Difference(
        "RSAPSS and SHA-384",
        "^accepted: (RSAPSS|.* with SHA384)",
        "invalid quote signature",
        "It knows RSASSA and ECDSA, and one hash for each key",
    ),
    Difference(
        "selection of PCRs",
        "covers another bank or other PCRs than asked for",
        ACCEPTED,
        "It takes a quote over whatever PCRs it is given values of; we ask for all 24, in one selection",
    ),
    Difference(
        "flags",
        "a flag that is neither yes nor no",
        ACCEPTED,
        "It takes any octet for a TPMI_YES_NO",
    ),
    Difference(
        "hash named by the signature",
        "names an unknown hash algorithm|with a hash that is too weak",
        ACCEPTED,
        "It takes the hash that belongs to the key and does not read the one that TPMT_SIGNATURE names",
    ),
)
GO_COSE: Final = (
    Difference(
        "critical headers",
        "COSE message with critical headers",
        ACCEPTED,
        "It leaves the list of critical headers to the caller, who may not look; we understand none",
    ),
    Difference(
        "header in both places",
        "a header in both places, or an algorithm that is not protected",
        ACCEPTED,
        "RFC 9052, 3: a label must not occur in both",
    ),
    Difference(
        "algorithm and curve",
        "algorithm of the COSE message does not fit its key",
        ACCEPTED,
        "It takes any curve with any hash, as RFC 9053 allows; we the one curve that CCA and Nitro use with each",
    ),
    Difference(
        "rare types of CBOR",
        "CBOR of a type that is not expected|not the CBOR that is expected",
        ACCEPTED,
        "Floating point and other types that no token of ours has",
    ),
    Difference(
        "IV and Partial IV",
        ACCEPTED,
        "IV and PartialIV",
        "It checks the form of unprotected headers; we ignore what nothing vouches for",
    ),
)

ALL: Final[Mapping[str, Sequence[Difference]]] = {
    "dcap-qvl": DCAP_QVL,
    "go-tdx-guest": GO_TDX_GUEST,
    "go-sev-guest": GO_SEV_GUEST,
    "go-eventlog": GO_EVENTLOG,
    "go-attestation": GO_ATTESTATION,
    "go-cose": GO_COSE,
}
