# Appraisal Policy for Evidence, profile full: every row of the default must hold, the optional ones too.
#
# The default affirms a guest whose settings nobody approved (`configuration` 3) and one that is known by registers only
# (`executables` 4). Here both are refused, and settings that the TEE's evidence does not show leave `configuration` at 0.
package policy

import data.kbs.cpu
import data.kbs.profile

table := {rule: {"must": rows} |
	some rule in ["hardware", "executables", "configuration"]
	rows := array.concat(profile.rows(rule, "must"), profile.rows(rule, "better"))
	count(rows) > 0
}

trust_claims := profile.vector(table, {})

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, {})
