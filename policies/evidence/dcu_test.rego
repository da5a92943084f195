package evidence_dcu_test

import data.policy

body := {"version": 1, "chip_id": "54", "measure": "d1", "sig_usage": "1004", "sig_algo": "4"}

good := {"body": body, "chip": "T", "binding": "checked", "revocation": "not_applicable"}

references := {"dcu_measure": ["d0", "d1"]}

vector(claims) := asserted if {
	found := policy.trust_claims with input as {"hygondcu": claims} with data.kbs.reference as references
	count(found) == 8
	asserted := {name: value | some name, value in found; value != 0}
}

nothing := {"executables": 33, "hardware": 97}

test_good if {
	vector(good) == {"executables": 3, "hardware": 2}
	vector(object.union(good, {"revocation": "checked"})) == {"executables": 3, "hardware": 2}
}

test_nobody_registered_the_measurement if {
	every values in [{}, {"dcu_measure": []}, {"dcu_measure": "d1"}, {"dcu_measure": ["d2"]}, {"dcu_measure": null}] {
		found := policy.trust_claims with input as {"hygondcu": good} with data.kbs.reference as values
		found.executables == 33
		found.hardware == 2
	}
}

test_each_claim_is_needed if {
	every name in ["binding", "revocation"] {
		every other in [null, false, "other", [good[name]], "not_checked"] {
			vector(object.union(good, {name: other})) == {"executables": 3, "hardware": 97}
		}
		vector(object.remove(good, [name])) == {"executables": 3, "hardware": 97}
	}
	every name in ["version", "sig_usage", "sig_algo"] {
		every other in [null, false, "other", [body[name]], 2] {
			vector(object.union(good, {"body": object.union(body, {name: other})})) == {"executables": 3, "hardware": 97}
		}
		vector(object.union(object.remove(good, ["body"]), {"body": object.remove(body, [name])})) == {"executables": 3, "hardware": 97}
	}
	every other in [null, false, "d2", ["d1"], 1] {
		vector(object.union(good, {"body": object.union(body, {"measure": other})})) == {"executables": 33, "hardware": 2}
	}
}

test_no_rules if {
	vector({}) == nothing
	vector(null) == nothing
	every document in [{}, {"sampledevice": {"svn": "2", "binding": "checked"}}, {"nvidia": good}] {
		found := policy.trust_claims with input as document with data.kbs.reference as references
		found.hardware == 97
		found.executables == 33
		policy.findings == [] with input as document
	}
}

test_findings if {
	found := policy.findings with input as {"hygondcu": good} with data.kbs.reference as references
	count(found) == 6
	every finding in found {
		finding.ok == true
	}
	other := object.union(good, {"body": object.union(body, {"measure": "d2"})})
	strange := policy.findings with input as {"hygondcu": other} with data.kbs.reference as references
	[finding | some finding in strange; not finding.ok] == [{
		"rule": "executables", "claim": "hygondcu.body.measure", "reference": "dcu_measure",
		"seen": "d2", "expected": ["d0", "d1"], "ok": false, "comparison": "in",
	}]
}
