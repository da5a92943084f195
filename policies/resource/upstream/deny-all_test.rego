package resource_upstream_deny_all_test

import data.policy

test_never if {
	affirming := {"submods": {"cpu0": {"ear.status": "affirming"}}}
	policy.allow == false with input as affirming with data.plugin as "resource"
}
