# Appraisal Policy for Evidence, profile tcb-grace: as the default, and an outdated TCB may still be used for some days.
#
# For TEEs whose maker publishes TCB levels (tdx, sgx, az-tdx-vtpm): `hardware` 3 for a platform that is out of date, or
# advised to relaunch its guests, since no more days than the reference value `tcb_grace_days` (a number) says. Levels
# that need another configuration or hardening have no grace. Every other TEE is appraised as by the default.
package policy

import data.kbs.cpu
import data.kbs.profile

table := object.union(profile.standard, {rule: group | some rule, group in {"hardware": tolerant}; has_tcb_status})

has_tcb_status if {
	some check in profile.rows("hardware", "must")
	check[0] == "tcb_status"
}

tolerant := {
	"must": array.concat(
		[check | some check in profile.rows("hardware", "must"); check[0] != "tcb_status"],
		[["tcb_status", "one of", ["UpToDate", "OutOfDate", "TDRelaunchAdvised"]]],
	),
	"better": [["tcb_status", "is", "UpToDate"]],
	"also": [[days, "at most", "tcb_grace_days", "tcb_status[up to date]"]],
	"scale": [2, 3, 97],
}

days := concat(".", [cpu.tee, "tcb_out_of_date_days"])

default facts := {}

facts := {
	days: object.get(cpu.claims(cpu.tee), "tcb_out_of_date_days", null),
	"tcb_status[up to date]": object.get(cpu.claims(cpu.tee), "tcb_status", null) == "UpToDate",
}

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, facts)
