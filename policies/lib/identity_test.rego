package kbs.identity_test

import data.kbs.identity
import data.kbs.samples

document := samples.with_init_data("snp")

named(values) := found if {
	found := identity.identifiers with input as document with data.kbs.reference as values
}

wanted := {
	"annotations": {
		"io.kubernetes.cri.container-type": ["sandbox"],
		"io.kubernetes.cri.image-name": [samples.image],
		"io.kubernetes.cri.sandbox-name": ["api-0"],
		"io.kubernetes.cri.sandbox-namespace": ["payments"],
	},
	"container_image_digests": ["sha256:1111111111111111111111111111111111111111111111111111111111111111"],
	"namespaces": ["payments"],
}

test_nobody_vouches if {
	every values in [
		{}, {"init_data_digests": []}, {"init_data_digests": ["3a60"]}, {"init_data_digests": "3a5f"},
		{"agent_policy_rules_digests": ["00"]}, {"agent_policy_rules_digests": samples.rules},
		{"insecure_trust_init_data_author": "true"},
	] {
		named(values) == {}
	}
}

test_somebody_vouches if {
	named({"init_data_digests": ["3a5f"]}) == wanted
	named({"agent_policy_rules_digests": [samples.rules]}) == wanted
	named({"insecure_trust_init_data_author": true}) == wanted
}

# Nothing that the hardware measured, so nothing that anybody could have approved.
test_without_measured_init_data if {
	every values in [
		{"init_data_digests": ["3a5f", null]}, {"agent_policy_rules_digests": [samples.rules]},
		{"insecure_trust_init_data_author": true},
	] {
		every unmeasured in [json.remove(document, [["init_data"]]), object.union(document, {"init_data": null})] {
			identity.identifiers == {} with input as unmeasured with data.kbs.reference as values
		}
	}
}

test_rules_are_text if {
	every digest in [null, 1, [], {}] {
		strange := json.patch(document, [{"op": "add", "path": ["init_data_claims", "agent_policy_rules_sha256"], "value": digest}])
		not identity.rules_approved with input as strange with data.kbs.reference as {"agent_policy_rules_digests": [digest]}
	}
	not identity.rules_approved with input as {"init_data": "3a5f"} with data.kbs.reference as {"agent_policy_rules_digests": [null]}
}

# Labels are no part of the rules: only who approved the document approved them.
test_service_account if {
	labelled := json.patch(document, [{"op": "add", "path": ["init_data_claims", "service-account"], "value": "payments/api"}])
	whole := identity.identifiers with input as labelled with data.kbs.reference as {"init_data_digests": ["3a5f"]}
	whole.service_accounts == ["payments/api"]
	rules := identity.identifiers with input as labelled with data.kbs.reference as {"agent_policy_rules_digests": [samples.rules]}
	rules == wanted
	strange := json.patch(document, [{"op": "add", "path": ["init_data_claims", "service-account"], "value": {"a": 1}}])
	found := identity.identifiers with input as strange with data.kbs.reference as {"init_data_digests": ["3a5f"]}
	found == wanted
}

test_patterns_and_tags_name_nothing if {
	odd := [
		null, 1, "x", {}, {"OCI": {"Annotations": []}}, samples.container({"io.kubernetes.cri.image-name": "app:latest", "number": 1}),
		samples.container({"io.kubernetes.cri.sandbox-name": "^api-[0-9]+$", "path": "/run/$(bundle-id)", "io.kubernetes.cri.image-name": "a@sha256:1"}),
	]
	strange := json.patch(document, [{"op": "add", "path": ["init_data_claims", "agent_policy_claims", "containers"], "value": odd}])
	found := identity.identifiers with input as strange with data.kbs.reference as {"init_data_digests": ["3a5f"]}
	found == {
		"annotations": {
			"io.kubernetes.cri.image-name": ["a@sha256:1", "app:latest"],
			"io.kubernetes.cri.sandbox-name": ["api-0"],
			"io.kubernetes.cri.sandbox-namespace": ["payments"],
		},
		"namespaces": ["payments"],
	}
}
