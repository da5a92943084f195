# Appraisal Policy for Evidence of class gpu: the default.
#
# Claims, reference values and numbers are those of upstream's default policy (attestation-service 2.6); the claims are
# those of the remote verifier (NRAS). Added: binding, revocation and NRAS's overall result have to be there and good,
# and a failed measurement comparison bars `hardware` too.
#
# Every comparison is a row of a table (kbs.checks): claim, comparison, constant or reference value.
package policy

import data.kbs.checks

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

# configuration 3: locked, not compared with approved versions.
trust_claims := {
	"executables": checks.grade(input.nvidia, table.executables, [3, 3, 33]),
	"hardware": checks.grade(input.nvidia, table.hardware, [2, 2, 97]),
	"configuration": checks.grade(input.nvidia, table.configuration, [2, 3, 36]),
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

table := {
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["x-nvidia-overall-att-result", "is", true],
		["measres", "is", "success"],
		[["x-nvidia-gpu-attestation-report-cert-chain", "x-nvidia-cert-status"], "is", "valid"],
		[["x-nvidia-gpu-attestation-report-cert-chain", "x-nvidia-cert-ocsp-status"], "is", "good"],
		["x-nvidia-gpu-attestation-report-cert-chain-fwid-match", "is", true],
		["x-nvidia-gpu-attestation-report-parsed", "is", true],
		["x-nvidia-gpu-attestation-report-signature-verified", "is", true],
		["x-nvidia-gpu-arch-check", "is", true],
	]},
	"executables": {"must": [
		["measres", "is", "success"],
		[["x-nvidia-gpu-vbios-rim-cert-chain", "x-nvidia-cert-status"], "is", "valid"],
		[["x-nvidia-gpu-vbios-rim-cert-chain", "x-nvidia-cert-ocsp-status"], "is", "good"],
		["x-nvidia-gpu-driver-rim-fetched", "is", true],
		["x-nvidia-gpu-driver-rim-measurements-available", "is", true],
		["x-nvidia-gpu-driver-rim-schema-validated", "is", true],
		["x-nvidia-gpu-driver-rim-signature-verified", "is", true],
		["x-nvidia-gpu-driver-rim-version-match", "is", true],
		["x-nvidia-gpu-vbios-rim-fetched", "is", true],
		["x-nvidia-gpu-vbios-rim-measurements-available", "is", true],
		["x-nvidia-gpu-vbios-rim-schema-validated", "is", true],
		["x-nvidia-gpu-vbios-rim-signature-verified", "is", true],
		["x-nvidia-gpu-vbios-rim-version-match", "is", true],
	]},
	"configuration": {
		"must": [
			["secboot", "is", true],
			["dbgstat", "is", "disabled"],
		],
		"better": [
			["x-nvidia-gpu-vbios-version", "in", "allowed_vbios_versions"],
			["x-nvidia-gpu-driver-version", "in", "allowed_driver_versions"],
		],
	},
}

default findings := []

findings := checks.findings("nvidia", input.nvidia, table)
