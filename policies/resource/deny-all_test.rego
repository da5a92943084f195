package resource_deny_all_test

import data.policy

test_never if {
	affirming := {"submods": {"cpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"snp": {}}}}}
	policy.allow == false with input as affirming with data.plugin as "resource"
	some finding in policy.findings
	finding.ok == false
}
