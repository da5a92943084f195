# Appraisal Policy for Evidence of class gpu with exactly the decisions of upstream's default (attestation-service 2.6).
#
# Only the remote verifier (NRAS) emits these claims. Upstream's rule for the sample device reads a document that is no
# longer filled; it never holds and is left out.
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
	chain_good(device["x-nvidia-gpu-attestation-report-cert-chain"])
	device["x-nvidia-gpu-attestation-report-cert-chain-fwid-match"] == true
	device["x-nvidia-gpu-attestation-report-parsed"] == true
	device["x-nvidia-gpu-attestation-report-signature-verified"] == true
	device["x-nvidia-gpu-arch-check"] == true
}

configuration := 2 if {
	locked
	device["x-nvidia-gpu-vbios-version"] in query_reference_value("allowed_vbios_versions")
	device["x-nvidia-gpu-driver-version"] in query_reference_value("allowed_driver_versions")
} else := 3 if locked

executables := 3 if {
	chain_good(device["x-nvidia-gpu-vbios-rim-cert-chain"])
	device.measres == "success"
	every which in ["driver", "vbios"] {
		every step in ["fetched", "measurements-available", "schema-validated", "signature-verified", "version-match"] {
			device[concat("-", ["x-nvidia-gpu", which, "rim", step])] == true
		}
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
