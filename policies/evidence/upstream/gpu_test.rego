package evidence_upstream_gpu_test

import data.policy

chain := {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}

good := {
	"measres": "success",
	"secboot": true,
	"dbgstat": "disabled",
	"x-nvidia-gpu-attestation-report-cert-chain": chain,
	"x-nvidia-gpu-attestation-report-cert-chain-fwid-match": true,
	"x-nvidia-gpu-attestation-report-parsed": true,
	"x-nvidia-gpu-attestation-report-signature-verified": true,
	"x-nvidia-gpu-arch-check": true,
	"x-nvidia-gpu-vbios-version": "96.00.9F.00.01",
	"x-nvidia-gpu-driver-version": "570.86.15",
	"x-nvidia-gpu-vbios-rim-cert-chain": chain,
	"x-nvidia-gpu-driver-rim-fetched": true,
	"x-nvidia-gpu-driver-rim-measurements-available": true,
	"x-nvidia-gpu-driver-rim-schema-validated": true,
	"x-nvidia-gpu-driver-rim-signature-verified": true,
	"x-nvidia-gpu-driver-rim-version-match": true,
	"x-nvidia-gpu-vbios-rim-fetched": true,
	"x-nvidia-gpu-vbios-rim-measurements-available": true,
	"x-nvidia-gpu-vbios-rim-schema-validated": true,
	"x-nvidia-gpu-vbios-rim-signature-verified": true,
	"x-nvidia-gpu-vbios-rim-version-match": true,
}

references := {"allowed_vbios_versions": ["96.00.9F.00.01"], "allowed_driver_versions": ["570.86.15"]}

versions := {"x-nvidia-gpu-vbios-version", "x-nvidia-gpu-driver-version"}

vector(claims) := asserted if {
	found := policy.trust_claims with input as {"nvidia": claims} with data.kbs.reference as references
	count(found) == 8
	asserted := {name: value | some name, value in found; value != 0}
}

nothing := {"executables": 33, "hardware": 97, "configuration": 36}

test_good if {
	vector(good) == {"executables": 3, "hardware": 2, "configuration": 2}
}

test_versions_that_nobody_registered if {
	found := policy.trust_claims with input as {"nvidia": good} with data.kbs.reference as {}
	found.configuration == 3
}

# Without a version the configuration is 3; without any other claim one trust claim at least is not affirmed.
test_each_claim_is_needed if {
	every name, value in good {
		every other in [null, false, "other", [value]] {
			spoilt(name, vector(object.union(good, {name: other})))
		}
		spoilt(name, vector(object.remove(good, [name])))
	}
}

spoilt(name, asserted) if {
	name in versions
	asserted == {"executables": 3, "hardware": 2, "configuration": 3}
}

spoilt(name, asserted) if {
	not name in versions
	some trust, value in nothing
	asserted[trust] == value
}

test_failed_measurements if {
	asserted := vector(object.union(good, {"measres": "fail"}))
	asserted == {"executables": 33, "hardware": 2, "configuration": 2}
}

test_no_rules if {
	vector({}) == nothing
	vector(null) == nothing
	vector({"arch": "Hopper", "config": {"driver_version": "570.86.15"}}) == nothing
	every document in [{}, {"sampledevice": {"svn": "2", "binding": "checked"}}] {
		found := policy.trust_claims with input as document with data.kbs.reference as references
		found.hardware == 97
		found.configuration == 36
		found.executables == 33
	}
}
