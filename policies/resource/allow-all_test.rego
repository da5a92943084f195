package resource_allow_all_test

import data.policy

test_resource if {
	policy.allow == true with input as {} with data.plugin as "resource"
	some finding in policy.findings with input as {} with data.plugin as "resource"
	finding.ok == true
}

test_other_plugins if {
	every plugin in ["pkcs11", "", null, ["resource"]] {
		policy.allow == false with input as {} with data.plugin as plugin
	}
	policy.allow == false with input as {}
	some finding in policy.findings with input as {}
	finding.ok == false
	finding.expected == "resource"
}
