package resource_by_init_data_test

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
		refused(claims, ["default", "3a5f", "key"])
	}
	policy.allow == false with input as good with data.plugin as "pkcs11" with data["resource-path"] as ["default", "3a5f", "key"]
	policy.allow == false with input as good with data["resource-path"] as ["default", "3a5f", "key"]
}

good := samples.token("snp", 2)

test_digest if {
	allowed(good, ["default", "3a5f", "key"])
	allowed(samples.token("snp", 0), ["anything", "3a5f", "key"])
	every path in [["3a5f", "key", "1"], ["default", "3a60", "key"], ["default", "3A5F", "key"], ["default"], [], null] {
		refused(good, path)
	}
}

test_no_init_data if {
	bare := json.remove(good, [array.concat(evidence, ["init_data"])])
	every path in [["default", "3a5f", "key"], ["default", null, "key"], ["default", "", "key"], ["default"]] {
		refused(bare, path)
	}
}
