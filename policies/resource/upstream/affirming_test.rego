package resource_upstream_affirming_test

import data.policy

allow(submods) := result if {
	result := policy.allow with input as {"submods": submods} with data.plugin as "anything"
}

test_every_submodule if {
	allow({"cpu0": {"ear.status": "affirming"}}) == true
	allow({"gpu0": {"ear.status": "affirming"}}) == true
	allow({"cpu0": {"ear.status": "affirming"}, "gpu0": {"ear.status": "warning"}}) == false
	allow({"cpu0": {"ear.status": "none"}}) == false
	allow({"cpu0": {}}) == false
}

test_no_submodules if {
	every submods in [null, {}, [], "text", 1] {
		allow(submods) == false
	}
	policy.allow == false with input as {}
}
