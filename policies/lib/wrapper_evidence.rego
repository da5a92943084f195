# Entry points over an evidence policy. A rule that is absent or undefined is a missing key, never a default.
#
# Uploads cannot define this package: exactly `package policy` is accepted. The check of `input` is there because OPA
# takes bytes that are no JSON for an undefined input, under which `not input.x` would hold.
package kbs.evidence

verdict["trust_claims"] := value if {
	is_object(input)
	value := data.policy.trust_claims
}

verdict["extensions"] := value if {
	is_object(input)
	value := data.policy.extensions
}

# An entry point of its own, so that a decision never pays for its explanation.
explanation["findings"] := value if {
	is_object(input)
	value := data.policy.findings
}
