package evidence_upstream_ppcie_test

import data.policy

test_unconditional if {
	every document in [{}, {"nvidia": {"switch_count": 4, "gpu_count": 8}}] {
		found := policy.trust_claims with input as document
		count(found) == 8
		{name: value | some name, value in found; value != 0} == {"configuration": 2}
	}
}
