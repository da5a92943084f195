# Appraisal Policy for Evidence of class switch with exactly the decisions of upstream's default (attestation-service
# 2.6).
package policy

default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

device := input.nvidia

hardware := 2 if {
	chain_good(device["x-nvidia-switch-attestation-report-cert-chain"])
	device["x-nvidia-switch-attestation-report-cert-chain-fwid-match"] == true
	device["x-nvidia-switch-attestation-report-parsed"] == true
	device["x-nvidia-switch-attestation-report-signature-verified"] == true
	device["x-nvidia-switch-arch-check"] == true
}

configuration := 2 if {
	locked
	device["x-nvidia-switch-bios-version"] in query_reference_value("allowed_switch_bios_versions")
} else := 3 if locked

executables := 3 if {
	chain_good(device["x-nvidia-switch-bios-rim-cert-chain"])
	device.measres == "success"
	every step in ["fetched", "measurements-available", "schema-validated", "signature-verified", "version-match"] {
		device[concat("-", ["x-nvidia-switch-bios-rim", step])] == true
	}
}

locked if {
	device.secboot == true
	device.dbgstat == "disabled"
}

chain_good(chain) if {
	chain["x-nvidia-cert-status"] == "valid"
	chain["x-nvidia-cert-ocsp-status"] == "good"
}
