# Appraisal Policy for Evidence, profile same-release: as the default, and what it looks up is of one release.
#
# Every reference value that the default's verdict needs must come from one compound set; values by themselves approve
# nothing. So a kernel of one release does not pass with the initrd of another, though both are approved. The optional
# rows are looked up in the same set.
package policy

import data.kbs.checks
import data.kbs.cpu
import data.kbs.profile
import data.kbs.sets

default claims := {}

claims := cpu.claims(cpu.tee)

rules := ["executables", "hardware", "configuration"]

asked := [row | some rule in rules; some row in sets.looked_up(claims, profile.rows(rule, "must"))]

optional := [row | some rule in rules; some row in sets.looked_up(claims, profile.rows(rule, "better"))]

# Of the sets that cover what must be, the one that covers most of the rest: one set decides about all of it.
default chosen := null

chosen := covering[sets.closest(covering, claims, optional)] if covering := sets.covering(claims, asked)

facts := {"reference values[one set]": chosen != null}

table := {rule: group |
	some rule, standard in profile.standard
	rest := [row | some row in standard.must; not row in asked]
	group := object.union(
		{"also": [["reference values[one set]", "is", true]], "scale": scale(rule)},
		{"must": rows | rows := rest; count(rows) > 0},
	)
}

# As the default has it: all of the optional rows hold, or there are none; else the second best.
scale(rule) := profile.scales[rule] if {
	every row in profile.rows(rule, "better") {
		sets.covers(chosen, claims, row)
	}
} else := [second, second, refused] if [_, second, refused] := profile.scales[rule]

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := array.concat(
	checks.findings(cpu.tee, claims, {rule: {"must": group.must} | some rule, group in table}),
	sets.findings("executables", cpu.tee, claims, asked),
)
