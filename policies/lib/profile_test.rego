package kbs.profile_test

import data.kbs.profile
import data.kbs.samples

hardware := {"must": [["binding", "is", "checked"]]}

vector(table, facts) := asserted if {
	claims := profile.vector(table, facts) with input as samples.document("snp")
	count(claims) == 8
	asserted := {name: value | some name, value in claims; value != 0}
}

test_groups if {
	vector({"hardware": hardware}, {}) == {"hardware": 2}
	vector({"hardware": object.union(hardware, {"better": [["binding", "is", "x"]], "scale": [2, 3, 97]})}, {}) == {"hardware": 3}
	vector({"hardware": hardware, "configuration": {"also": [["a", "is", 1]]}}, {"a": 1}) == {"hardware": 2, "configuration": 2}
	vector({"hardware": hardware, "configuration": {"also": [["a", "is", 1]]}}, {}) == {"hardware": 2, "configuration": 36}
	vector({"hardware": object.union(hardware, {"also": [["a", "is", 1]]})}, {"a": 2}) == {"hardware": 97}
	vector({"hardware": hardware, "executables": {}}, {}) == {"hardware": 2, "executables": 33}
}

test_what_cannot_be_worked_out_refuses if {
	refused := {"executables": 33, "hardware": 97, "configuration": 36}
	vector({}, {}) == refused
	vector({"executables": hardware}, {}) == refused
	vector({"hardware": hardware, "unknown": hardware}, {}) == refused
	every document in [{}, {"snp": 1, "tdx": 1}, {"unknown": {}}] {
		profile.vector({"hardware": hardware}, {}).hardware == 97 with input as document
		profile.standard == {} with input as document
	}
}

test_claims_that_are_no_object_refuse if {
	every claims in ["x", null, 1, [], true] {
		table := object.union(profile.standard, {"executables": {"also": [["a", "is", 1]]}}) with input as {"tdx": claims}
		graded := profile.vector(table, {"a": 1}) with input as {"tdx": claims}
		{graded.hardware, graded.executables, graded.configuration} == {97, 33, 36}
	}
}

test_findings if {
	table := {"hardware": hardware, "configuration": {"also": [[["a", "b"], "is", 1]]}}
	found := profile.findings(table, {"a": {"b": 2}}) with input as samples.document("snp")
	found == [
		{"rule": "hardware", "claim": "snp.binding", "reference": null, "seen": "checked", "expected": "checked", "ok": true},
		{"rule": "configuration", "claim": "a.b", "reference": null, "seen": 2, "expected": 1, "ok": false},
	]
}

test_rows if {
	profile.fixed([["a", "is", 1], ["b", "in", "c"]]) == [["a", "is", 1]]
	profile.rows("executables", "must") == [["measurement", "in", "snp_launch_measurement"]] with input as samples.document("snp")
	profile.rows("executables", "better") == [] with input as samples.document("snp")
}

test_init_data if {
	profile.pinned[2] == "init_data_digests"
	document := samples.with_init_data("snp")
	profile.init_data_facts == {"init_data": "3a5f", "agent_policy_enforced": false} with input as document
	every value in [false, null, "true", 1, {}] {
		profile.init_data_facts.agent_policy_enforced == false with input as document
			with data.kbs.reference as {"insecure_trust_init_data_author": value}
	}
	profile.init_data_facts.agent_policy_enforced == true with input as document
		with data.kbs.reference as {"insecure_trust_init_data_author": true}
	profile.init_data_facts.init_data == null with input as {}
}
