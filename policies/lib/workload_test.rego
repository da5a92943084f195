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
	wanted := [
		"registry.example/a@sha256:1",
		"registry.example/a@sha256:1",
		"registry.example/a@sha256:1",
		null, null,
	]
	workload.images({"tdx": {"uefi_event_logs": events}}) == wanted
	workload.images({"tpm": {"runtime_events": [event.details.data | some event in events]}}) == wanted
}

# Of both lists the one that holds the agent's events alone is read, also when it is empty.
test_pulled_is_read_once if {
	both := {"runtime_events": [], "uefi_event_logs": [pull({"image": "a", "digest": "sha256:1"})]}
	workload.pulled({"tdx": both}) == []
}

test_pulled_whatever_the_domain if {
	event := {"domain": "example.org", "operation": "PullImage", "content": {"image": "a", "digest": "sha256:1"}}
	workload.pulled({"tdx": {"runtime_events": [event]}}) == ["a@sha256:1"]
}

test_pulled_strange if {
	every content in [null, 1, "x", [], {}, {"image": "a"}, {"digest": "sha256:1"}, {"image": "a", "digest": 1}, {"image": "a", "digest": "md5:1"}] {
		workload.pulled({"tdx": {"runtime_events": [{"operation": "PullImage", "content": content}]}}) == [null]
	}
}

# A token that had no room for the events does not say that nothing was pulled.
test_pulled_but_left_out if {
	workload.pulled({"tdx": {}, "omitted": {"tdx.runtime_events": 3}}) == [null]
	workload.pulled({"tdx": {"runtime_events": []}, "omitted": {"tdx.uefi_event_logs": 3}}) == []
}

logged(tee, index, events, runtime) := {tee: {"event_log": {"registers": [
	{"index": 1, "events": 7, "recomputed": 7, "runtime_events": 0},
	{"index": index, "events": events, "recomputed": events, "runtime_events": runtime},
]}}}

test_runtime_log_complete if {
	every pair in [["tdx", 4], ["csv", 4], ["tpm", 17], ["az-snp-vtpm", 17], ["az-tdx-vtpm", 17]] {
		workload.runtime_log(logged(pair[0], pair[1], 0, 0)) == "complete"
		workload.runtime_log(logged(pair[0], pair[1], 2, 2)) == "complete"
		workload.runtime_log(logged(pair[0], pair[1], 2, 1)) == null
		workload.runtime_log(logged(pair[0], 3, 2, 2)) == null
	}
	workload.runtime_log({"tdx": {"event_log": {"registers": [{"index": 4}]}}}) == null
	workload.runtime_log({"az-tdx-vtpm": {"tpm": {"pcr17": "00"}, "event_log": {"registers": []}}}) == null
	workload.runtime_log({"tdx": {"event_log": {"registers": [{"index": 4, "events": null, "runtime_events": null}]}}}) == null
}

test_runtime_log_left_out if {
	workload.runtime_log({"tdx": {"quote": {"body": {"rtmr_3": "000000"}}}}) == "unused"
	workload.runtime_log({"csv": {"rtmr4": "0000"}}) == "unused"
	workload.runtime_log({"csv": {"version": 1}}) == "unused"
	workload.runtime_log({"tpm": {"pcr17": "ffff"}}) == "unused"
	workload.runtime_log({"az-snp-vtpm": {"tpm": {"pcr17": "FFFF"}}}) == "unused"
	every document in [
		{}, {"unknown": {}}, {"tdx": {}}, {"tdx": {"quote": {"body": {"rtmr_3": "0001"}}}}, {"tdx": {"quote": {"body": {"rtmr_3": ""}}}},
		{"csv": {"rtmr4": "01"}}, {"csv": {"rtmr_version": 1}}, {"csv": null}, {"tpm": {"pcr17": "0f"}}, {"tpm": {}},
		{"az-tdx-vtpm": {"tpm": {"pcr17": "01"}}}, {"az-tdx-vtpm": {"tpm": {}}},
	] {
		workload.runtime_log(document) == null
	}
}

test_runtime_log_of_tees_without_one if {
	every tee in ["snp", "sgx", "cca", "se", "nitro", "sample"] {
		workload.runtime_log({tee: {}}) == "unused"
	}
	workload.runtime_log({"sample": {}, "tdx": {}}) == null
}

test_only if {
	workload.only(["a", "a"]) == "a"
	workload.only(["a", "b"]) == null
	workload.only(["a", null]) == null
	workload.only([]) == null
}
