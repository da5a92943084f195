package kbs.workload_test

import data.kbs.samples
import data.kbs.workload

pull(content) := {"details": {
	"unicode_name": "AAEL",
	"data": {"domain": "github.com/confidential-containers", "operation": "PullImage", "content": content},
}}

test_init_data if {
	document := samples.with_init_data("snp")
	workload.images(document) == ["(sandbox)", samples.image]
	workload.namespaces(document) == ["payments", "payments"]
	workload.pods(document) == ["api-0", "api-0"]
}

test_strange_init_data if {
	every containers in [null, {}, "x", 1] {
		workload.images({"init_data_claims": {"agent_policy_claims": {"containers": containers}}}) == []
	}
	every document in [{}, {"init_data_claims": null}, {"init_data_claims": {"agent_policy_claims": "x"}}] {
		workload.containers(document) == []
		workload.pulled(document) == []
	}
	odd := {"init_data_claims": {"agent_policy_claims": {"containers": [null, 1, "x", [], {}, {"OCI": 1}, {"OCI": {"Annotations": []}}]}}}
	workload.images(odd) == [null, null, null, null, null, null, null]
	workload.namespaces(odd) == [null, null, null, null, null, null, null]
}

test_a_sandbox_with_a_name_is_an_image if {
	named := {"OCI": {"Annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.image-name": "evil"}}}
	workload.images({"init_data_claims": {"agent_policy_claims": {"containers": [named]}}}) == ["evil"]
}

test_pulled if {
	events := [
		pull({"image": "registry.example/a", "digest": "sha256:1"}),
		pull({"image": "registry.example/a@sha256:1", "digest": "sha256:1"}),
		pull({"image": "registry.example/a@sha256:2", "digest": "sha256:1"}),
		pull("text"),
		pull({"image": 1}),
		{"details": {"unicode_name": "AAEL", "data": {"operation": "other", "content": {}}}},
		{"details": {}},
	]
	workload.images({"tdx": {"uefi_event_logs": events}}) == [
		"registry.example/a@sha256:1",
		"registry.example/a@sha256:1",
		null, null, null,
	]
}

test_only if {
	workload.only(["a", "a"]) == "a"
	workload.only(["a", "b"]) == null
	workload.only(["a", null]) == null
	workload.only([]) == null
}
