package resource_upstream_default_test

import data.policy

allow(claims, plugin) := result if {
	result := policy.allow with input as claims with data.plugin as plugin
}

token(evidence) := {"submods": {"cpu0": {"ear.veraison.annotated-evidence": evidence}}}

test_not_sample if {
	allow(token({"snp": {}}), "resource") == true
	allow({"submods": {"cpu0": {"ear.status": "contraindicated"}}}, "resource") == true
}

test_refusals if {
	every value in [{}, null, false] {
		allow(token({"sample": value}), "resource") == false
	}
	allow(token({"snp": {}}), "pkcs11") == false
	policy.allow == false with input as token({"snp": {}})
}

test_cpu_has_to_be_present if {
	every claims in [{}, {"submods": {}}, {"submods": {"gpu0": {}}}, {"submods": {"cpu0": null}}] {
		allow(claims, "resource") == false
	}
}
