package resource_by_identity_test

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
		refused(claims, ["payments", "api-0", "key"])
	}
	policy.allow == false with input as good with data.plugin as "pkcs11" with data["resource-path"] as ["payments", "api-0", "key"]
	policy.allow == false with input as good with data["resource-path"] as ["payments", "api-0", "key"]
}

good := samples.token("snp", 2)

test_unrecognized if {
	every identity in [0, 97, null, "2"] {
		refused(samples.token("snp", identity), ["payments", "api-0", "key"])
	}
	refused(json.remove(good, [["submods", "cpu0", "ear.trustworthiness-vector"]]), ["payments", "api-0", "key"])
}

test_pod if {
	allowed(good, ["payments", "api-0", "key"])
	every path in [["payments", "api-1", "key"], ["other", "api-0", "key"], ["api-0", "payments", "key"], ["payments"], [], null] {
		refused(good, path)
	}
}

test_containers_of_several_pods if {
	other := samples.container({"io.kubernetes.cri.sandbox-name": "api-1"})
	refused(put(good, array.concat(containers, ["-"]), other), ["payments", "api-0", "key"])
	refused(put(good, containers, []), ["payments", "api-0", "key"])
	refused(put(good, containers, []), [null, null, "key"])
}
