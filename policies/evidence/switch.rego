# Appraisal Policy for Evidence of class switch: the default.
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
		[["x-nvidia-switch-attestation-report-cert-chain", "x-nvidia-cert-status"], "is", "valid"],
		[["x-nvidia-switch-attestation-report-cert-chain", "x-nvidia-cert-ocsp-status"], "is", "good"],
		["x-nvidia-switch-attestation-report-cert-chain-fwid-match", "is", true],
		["x-nvidia-switch-attestation-report-parsed", "is", true],
		["x-nvidia-switch-attestation-report-signature-verified", "is", true],
		["x-nvidia-switch-arch-check", "is", true],
	]},
	"executables": {"must": [
		["measres", "is", "success"],
		[["x-nvidia-switch-bios-rim-cert-chain", "x-nvidia-cert-status"], "is", "valid"],
		[["x-nvidia-switch-bios-rim-cert-chain", "x-nvidia-cert-ocsp-status"], "is", "good"],
		["x-nvidia-switch-bios-rim-fetched", "is", true],
		["x-nvidia-switch-bios-rim-measurements-available", "is", true],
		["x-nvidia-switch-bios-rim-schema-validated", "is", true],
		["x-nvidia-switch-bios-rim-signature-verified", "is", true],
		["x-nvidia-switch-bios-rim-version-match", "is", true],
	]},
	"configuration": {
		"must": [
			["secboot", "is", true],
			["dbgstat", "is", "disabled"],
		],
		"better": [
			["x-nvidia-switch-bios-version", "in", "allowed_switch_bios_versions"],
		],
	},
}

default findings := []

findings := checks.findings("nvidia", input.nvidia, table)
