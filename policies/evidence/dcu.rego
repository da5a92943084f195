# Appraisal Policy for Evidence of class dcu (Hygon accelerators): the default. Upstream ships none.
#
# A report says which chip was measured and what was measured; the verifier has checked both under Hygon's root key.
# Nothing in it speaks of configuration.
#
# Every comparison is a row of a table (kbs.checks): claim, comparison, constant or reference value.
package policy

import data.kbs.checks

default trust_claims := {
	"executables": 33,
	"hardware": 97,
	"configuration": 0,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

trust_claims := {
	"executables": checks.grade(input.hygondcu, table.executables, [3, 3, 33]),
	"hardware": checks.grade(input.hygondcu, table.hardware, [2, 2, 97]),
	"configuration": 0,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

table := {
	"executables": {"must": [[["body", "measure"], "in", "dcu_measure"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		[["body", "version"], "is", 1],
		[["body", "sig_usage"], "is", "1004"],
		[["body", "sig_algo"], "is", "4"],
	]},
}

default findings := []

findings := checks.findings("hygondcu", input.hygondcu, table)
