# Appraisal Policy for Evidence of class ppcie: the default.
#
# The verifier appends this claim set when the devices of a node form the topology of protected PCIe (attestation-service
# 2.6, 6.12). Upstream affirms it unseen; here its two numbers, binding and revocation have to be there and right.
package policy

import data.kbs.checks

trust_claims := {
	"executables": 0,
	"hardware": 0,
	"configuration": configuration,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

default configuration := 36

configuration := checks.grade(input.nvidia, table.configuration, [2, 2, 36])

table := {"configuration": {"must": [
	["binding", "is", "checked"],
	["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
	["gpu_count", "is", 8],
	["switch_count", "is", 4],
]}}

default findings := []

findings := checks.findings("nvidia", input.nvidia, table)
