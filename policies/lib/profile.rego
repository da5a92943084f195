# Profiles: other readings of the tables of `data.kbs.cpu` than the default policy's, and rows beside them.
#
# A profile has a table: trust claim → {"must": rows, "better": rows, "also": rows, "scale": [all hold, only `must`
# holds, neither]}. `must` and `better` are about the TEE's claims, as in kbs.checks; `also` is about `facts`, an object
# that the profile makes of the rest of the input. Any of them may be left out; `scale` has the default below.
#
# Policies of your own may `import data.kbs.profile`.
package kbs.profile

import data.kbs.checks
import data.kbs.cpu
import data.kbs.identity

scales := {
	"executables": [3, 4, 33],
	"hardware": [2, 2, 97],
	"configuration": [2, 3, 36],
	"instance-identity": [2, 2, 97],
}

silent := {
	"executables": 0,
	"hardware": 0,
	"configuration": 0,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# What evidence of no TEE, of several, or of one without a table is worth.
refused := object.union(silent, {"executables": 33, "hardware": 97, "configuration": 36})

# The default policy's table for this input's TEE, empty for none.
default standard := {}

standard := cpu.table(cpu.tee)

# The eight trust claims. A group of rows that cannot be worked out refuses everything: it is never left out. Neither is
# the hardware: without a table for the TEE there is none of it.
vector(table, facts) := object.union(silent, graded) if {
	table.hardware
	graded := {rule: worth(group, object.get(group, "scale", scales[rule]), facts) | some rule, group in table}
	count(graded) == count(table)
} else := object.union(refused, {rule: scales[rule][2] | some rule, _ in table})

worth(group, scale, facts) := grade(group, scale) if {
	every check in object.get(group, "also", []) {
		checks.holds(facts, check)
	}
} else := scale[2]

grade(group, scale) := checks.grade(cpu.claims(cpu.tee), group, scale) if {
	group.must
} else := scale[0] if {
	not group.must
	count(group.also) > 0
} else := scale[2]

# One finding per row of the table.
findings(table, facts) := array.concat(
	checks.findings(cpu.tee, cpu.claims(cpu.tee), table),
	[finding |
		some rule, group in table
		some check in group.also
		finding := object.union(
			checks.describe(rule, "", facts, check),
			{"claim": concat(".", checks.path(check[0]))},
		)
	],
)

# The rows that compare with a constant: what nobody has to register.
fixed(rows) := [check | some check in rows; not check[1] in checks.by_reference]

# The rows of one part of one group of the TEE's table, none where it has none.
rows(rule, part) := object.get(standard, [rule, part], [])

# What the measured init data say holds only as far as the agent's rules enforce it, and whoever writes the document
# writes the rules. So the whole document is approved by its digest, unless its rules are approved by theirs or its author
# is trusted (kbs.identity).
pinned := ["init_data", "in", "init_data_digests", "agent_policy_enforced"]

init_data_facts := {
	"init_data": object.get(input, "init_data", null),
	"agent_policy_enforced": identity.enforced,
}
