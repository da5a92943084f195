# Appraisal Policy for Evidence, profile boot-only: genuine hardware, and what was started on it is approved.
#
# `hardware` and `executables` as the default has them. `configuration` 3 when nothing unsafe is switched on (debug,
# migration, VMPL …): the rows of the default that no reference value is needed for, so that no settings have to be
# registered.
package policy

import data.kbs.cpu
import data.kbs.profile

table := {rule: group |
	some rule, group in {
		"hardware": {"must": profile.rows("hardware", "must")},
		"executables": {part: rows | some part in ["must", "better"]; rows := profile.rows("executables", part); count(rows) > 0},
		"configuration": {"must": profile.fixed(profile.rows("configuration", "must")), "scale": [3, 3, 36]},
	}
	count(group.must) > 0
}

trust_claims := profile.vector(table, {})

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, {})
