# Appraisal Policy for Evidence, profile time-window: as the default, between two moments.
#
# `configuration` asks beside the default's rows that now is not before the reference value `window_begins` and before
# `window_ends`, both RFC 3339 texts. The clock is the broker's, or the OPA server's.
package policy

import data.kbs.cpu
import data.kbs.profile

table := object.union(
	profile.standard,
	{"configuration": {"also": [
		["now[not before window_begins]", "is", true],
		["now[before window_ends]", "is", true],
	]}},
)

facts := {"now[not before window_begins]": has_begun, "now[before window_ends]": has_not_ended}

default has_begun := false

has_begun if time.now_ns() >= moment("window_begins")

default has_not_ended := false

has_not_ended if time.now_ns() < moment("window_ends")

moment(id) := time.parse_rfc3339_ns(text) if {
	text := query_reference_value(id)
	is_string(text)
}

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, facts)
