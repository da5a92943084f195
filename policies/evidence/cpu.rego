# Appraisal Policy for Evidence of class cpu: the default.
#
# What is expected of each TEE stands in the tables of `data.kbs.cpu` (lib/cpu.rego): upstream's claims, reference values
# and numbers (attestation-service 2.5), and positive conditions beside them.
package policy

import data.kbs.checks
import data.kbs.cpu

default trust_claims := {
	"executables": 33,
	"hardware": 97,
	"configuration": 36,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# executables 4: measured by registers only. configuration 3: nothing unsafe, not compared with approved settings.
trust_claims := {
	"executables": checks.grade(document, rows.executables, [3, 4, 33]),
	"hardware": checks.grade(document, rows.hardware, [2, 2, 97]),
	"configuration": configuration(document, rows),
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
} if {
	rows := cpu.table(cpu.tee)
	document := cpu.claims(cpu.tee)
}

configuration(document, rows) := checks.grade(document, rows.configuration, [2, 3, 36])

# Nothing in TPM evidence speaks of configuration: no assertion.
configuration(_, rows) := 0 if not rows.configuration

extensions := cpu.extensions

default findings := []

findings := checks.findings(cpu.tee, cpu.claims(cpu.tee), cpu.table(cpu.tee))
