package resource_gpu_composite_test

import data.kbs.samples
import data.policy

decided(claims, path) := answer if {
	answer := policy.allow with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as path
		with data.query as {}
}

explained(claims, path) := answer if {
	answer := policy.findings with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as path
		with data.query as {}
}

allowed(claims, path) if {
	decided(claims, path) == true
	every finding in explained(claims, path) {
		finding.ok
	}
}

refused(claims, path) if {
	decided(claims, path) == false
	some finding in explained(claims, path)
	finding.ok == false
}

put(doc, path, value) := json.patch(doc, [{"op": "add", "path": path, "value": value}])

evidence := ["submods", "cpu0", "ear.veraison.annotated-evidence"]

containers := array.concat(evidence, ["init_data_claims", "agent_policy_claims", "containers"])

test_what_the_default_refuses if {
	every claims in [{}, samples.token("sample", 2), put(good, ["submods", "cpu0", "ear.status"], "warning")] {
		refused(claims, ["default", "key", "1"])
	}
	policy.allow == false with input as good with data.plugin as "pkcs11" with data["resource-path"] as ["default", "key", "1"]
	policy.allow == false with input as good with data["resource-path"] as ["default", "key", "1"]
}

good := put(samples.token("snp", 2), ["submods", "gpu0"], gpu)

gpu := {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"nvidia": {"measres": "success"}}}

test_gpus if {
	allowed(good, ["default", "key", "1"])
	allowed(put(good, ["submods", "gpu1"], gpu), ["default", "key", "1"])
	refused(samples.token("snp", 2), ["default", "key", "1"])
}

test_bad_gpus if {
	every other in [
		{"ear.status": "affirming"},
		{"ear.status": "affirming", "ear.veraison.annotated-evidence": {"sampledevice": {}}},
		{"ear.status": "affirming", "ear.veraison.annotated-evidence": {"nvidia": null}},
		{"ear.status": "affirming", "ear.veraison.annotated-evidence": null},
		object.union(gpu, {"ear.status": "warning"}),
		null,
	] {
		refused(put(good, ["submods", "gpu1"], other), ["default", "key", "1"])
		refused(put(good, ["submods", "gpu0"], other), ["default", "key", "1"])
	}
}
