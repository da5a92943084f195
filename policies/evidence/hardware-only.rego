# Appraisal Policy for Evidence, profile hardware-only: genuine hardware in a good state, whatever runs on it.
#
# `hardware` as the default has it. `configuration` 3 when nothing unsafe is switched on (debug, migration, VMPL …): the
# rows of the default that no reference value is needed for. `executables` is not looked at: 0.
package policy

import data.kbs.cpu
import data.kbs.profile

table := {rule: group |
	some rule, group in {
		"hardware": {"must": profile.rows("hardware", "must")},
		"configuration": {"must": profile.fixed(profile.rows("configuration", "must")), "scale": [3, 3, 36]},
	}
	count(group.must) > 0
}

trust_claims := profile.vector(table, {})

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, {})
