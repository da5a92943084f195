# Entry points over an evidence policy. A rule that is absent or undefined is a missing key, never a default.
#
# Uploads cannot define this package: exactly `package policy` is accepted.
package kbs.evidence

verdict["trust_claims"] := data.policy.trust_claims

verdict["extensions"] := data.policy.extensions

# An entry point of its own, so that a decision never pays for its explanation.
explanation["findings"] := data.policy.findings
