"""Sealed secrets: signed strings in Pod specifications that guests exchange for the secrets they point to or hold.

`token` is the string, `payload` what is signed, `keys` who signs, `envelope` the encrypted kind, `manifests` what
Kubernetes gets. Nothing here speaks to a broker. Source: guest-components 3.
"""
