# Findings: what a policy compared, for the question "why?". A policy offers them in a rule `findings` (an array);
# nobody evaluates it unless asked, so a decision never pays for its explanation.
#
# Policies of your own may `import data.kbs.findings`. Tables of checks (checks.rego) make their findings themselves.
package kbs.findings

# rule:      the trust claim that depends on the comparison, or "allow"
# claim:     dotted path in the input
# reference: id of the reference value compared with, or null where the policy itself states what it expects
# seen:      the claim's value, null when it is absent
# expected:  the value, or the list of values, that would have done
# ok:        whether the comparison came out well
# A finding may have a member more, `comparison`: one of those by reference value that checks.rego lists. `kbs explain`
# then knows the form of the value that would mend it.
finding(rule, claim, reference, seen, expected, ok) := {
	"rule": rule, "claim": claim, "reference": reference,
	"seen": seen, "expected": expected, "ok": ok,
}

# The claim must be exactly the boolean, number or text expected.
equals(rule, claim, seen, expected) := finding(rule, claim, null, seen, expected, truth(seen, [expected]))

# The claim must be one of a list.
one_of(rule, claim, seen, expected) := finding(rule, claim, null, seen, expected, truth(seen, expected))

# The document at `path` must be an object without that member: seen is "present" or null, or "not an object".
absent(rule, path, document, member) := finding(
	rule, concat(".", [path, member]), null,
	presence(document, member), null, presence(document, member) == null,
)

presence(document, member) := null if {
	is_object(document)
	not member in object.keys(document)
} else := "present" if {
	is_object(document)
} else := "not an object"

truth(seen, expected) if {
	seen != null
	seen in expected
} else := false
