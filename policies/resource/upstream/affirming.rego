# Upstream's resource policy "affirming" (KBS protocol 7.3).
#
# The plugin is not looked at, so this opens every attested plugin path, not resources alone.
package policy

default allow := false

allow if {
	is_object(input.submods)
	count(input.submods) > 0
	every appraisal in input.submods {
		appraisal["ear.status"] == "affirming"
	}
}
