package evidence_ppcie_test

import data.policy

good := {"binding": "checked", "revocation": "checked", "gpu_count": 8, "switch_count": 4}

vector(document) := {name: value | some name, value in found; value != 0} if {
	found := policy.trust_claims with input as document
	count(found) == 8
}

test_good if {
	vector({"nvidia": good}) == {"configuration": 2}
	waived := object.union(good, {"revocation": "not_checked", "revocation_waived": true})
	vector({"nvidia": waived}) == {"configuration": 2}
}

test_each_claim_is_needed if {
	every name, value in good {
		every other in [null, true, "other", 7, [value]] {
			vector({"nvidia": object.union(good, {name: other})}) == {"configuration": 36}
		}
		vector({"nvidia": object.remove(good, [name])}) == {"configuration": 36}
	}
}

test_no_claims if {
	every document in [{}, {"nvidia": null}, {"nvidia": []}, {"nvidia": {}}, {"sampledevice": good}] {
		vector(document) == {"configuration": 36}
	}
	policy.findings == [] with input as {}
}

test_findings if {
	found := policy.findings with input as {"nvidia": object.union(good, {"gpu_count": 1})}
	[finding | some finding in found; not finding.ok] == [{
		"rule": "configuration", "claim": "nvidia.gpu_count", "reference": null,
		"seen": 1, "expected": 8, "ok": false,
	}]
}
