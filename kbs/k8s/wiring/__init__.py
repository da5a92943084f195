"""What a Pod needs to attest, and what keeps it from being confidential: pure functions of a Pod and a profile.

`wire` is what the webhook, `kbs k8s check` and `kbs k8s wire` share. Nothing here is a control: whoever runs the
workload cluster can write whatever he likes into a Pod, and the broker sees it measured. A mistake here is a Pod that
gets no secret. Source: guest-components 4 and 6.
"""
