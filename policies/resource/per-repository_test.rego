package resource_per_repository_test

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

test_repository if {
	allowed(good, ["payments", "key", "1"])
	every path in [["other", "key", "1"], ["Payments", "key", "1"], [], [null], "payments", null, ["", "payments", "1"]] {
		refused(good, path)
	}
}

test_namespaces if {
	other := samples.container({"io.kubernetes.cri.sandbox-namespace": "other"})
	refused(put(good, array.concat(containers, ["-"]), other), ["payments", "key", "1"])
	refused(put(good, array.concat(containers, ["-"]), other), ["other", "key", "1"])
	refused(put(good, array.concat(containers, ["-"]), {}), ["payments", "key", "1"])
	every none in [[], null, {}] {
		refused(put(good, containers, none), ["payments", "key", "1"])
		refused(put(good, containers, none), [null, "key", "1"])
	}
}
