package resource_upstream_allow_all_test

import data.policy

test_resource_only if {
	policy.allow == true with input as {} with data.plugin as "resource"
	policy.allow == false with input as {} with data.plugin as "pkcs11"
	policy.allow == false with input as {}
}
