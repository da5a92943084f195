package evidence_switch_test

import data.policy

chain := {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}

good := {
	"binding": "checked",
	"revocation": "checked",
	"x-nvidia-overall-att-result": true,
	"measres": "success",
	"secboot": true,
	"dbgstat": "disabled",
	"x-nvidia-switch-attestation-report-cert-chain": chain,
	"x-nvidia-switch-attestation-report-cert-chain-fwid-match": true,
	"x-nvidia-switch-attestation-report-parsed": true,
	"x-nvidia-switch-attestation-report-signature-verified": true,
	"x-nvidia-switch-arch-check": true,
	"x-nvidia-switch-bios-version": "96.10.6D.00.01",
	"x-nvidia-switch-bios-rim-cert-chain": chain,
	"x-nvidia-switch-bios-rim-fetched": true,
	"x-nvidia-switch-bios-rim-measurements-available": true,
	"x-nvidia-switch-bios-rim-schema-validated": true,
	"x-nvidia-switch-bios-rim-signature-verified": true,
	"x-nvidia-switch-bios-rim-version-match": true,
}

references := {"allowed_switch_bios_versions": ["96.10.6D.00.01"]}

versions := {"x-nvidia-switch-bios-version"}

vector(claims) := asserted if {
	found := policy.trust_claims with input as {"nvidia": claims} with data.kbs.reference as references
	count(found) == 8
	asserted := {name: value | some name, value in found; value != 0}
}

nothing := {"executables": 33, "hardware": 97, "configuration": 36}

test_good if {
	vector(good) == {"executables": 3, "hardware": 2, "configuration": 2}
	waived := object.union(good, {"revocation": "not_checked", "revocation_waived": true})
	vector(waived) == {"executables": 3, "hardware": 2, "configuration": 2}
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

test_failed_measurements_bar_hardware if {
	asserted := vector(object.union(good, {"measres": "fail"}))
	asserted == {"executables": 33, "hardware": 97, "configuration": 2}
}

test_no_rules if {
	vector({}) == nothing
	vector(null) == nothing
	vector({"arch": "LS10"}) == nothing
	every document in [{}, {"sampledevice": {"svn": "2", "binding": "checked"}}] {
		found := policy.trust_claims with input as document with data.kbs.reference as references
		found.hardware == 97
		found.configuration == 36
		found.executables == 33
		policy.findings == [] with input as document
	}
}

test_findings if {
	found := policy.findings with input as {"nvidia": good} with data.kbs.reference as references
	count(found) > 15
	every finding in found {
		finding.ok == true
	}
	strange := policy.findings with input as {"nvidia": object.union(good, {"dbgstat": "enabled"})}
		with data.kbs.reference as references
	[finding | some finding in strange; not finding.ok] == [{
		"rule": "configuration", "claim": "nvidia.dbgstat", "reference": null,
		"seen": "enabled", "expected": "disabled", "ok": false,
	}]
}
