"""The core of Hygon's trust scheme, shared by CSV and DCU: SM2 signatures, two forms of certificate, one chain.

`sm2` verifies, `certificates` reads bytes, `json_form` reads what guests send, `chain` establishes trust from a pinned
root key. Certificates have no dates, and there is no revocation list.
"""
