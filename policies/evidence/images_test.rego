package evidence_images_test

import data.kbs.samples
import data.policy

references := object.union(samples.references, {"allowed_images": [samples.image, "(sandbox)"], "init_data_digests": ["3a5f"]})

vector(doc, values) := {name: value | some name, value in claims; value != 0} if {
	claims := policy.trust_claims with input as doc with data.kbs.reference as values
	count(claims) == 8
}

put(doc, path, value) := json.patch(doc, [{"op": "add", "path": path, "value": value}])

test_no_tee_or_several if {
	every doc in [{}, {"unknown": {}}, object.union(samples.with_init_data("snp"), samples.with_init_data("tdx")), {"nitro": {"document": "x"}}, {"snp": null}] {
		vector(doc, references).hardware == 97
	}
	policy.findings == [] with input as {}
}

test_a_claim_of_every_tee_that_is_gone if {
	every tee, _ in samples.good {
		vector(json.remove(samples.with_init_data(tee), [[tee, "binding"]]), references).hardware == 97
		vector(json.remove(samples.with_init_data(tee), [[tee, "revocation"]]), references).hardware == 97
	}
}

test_findings_agree if {
	every tee, _ in samples.good {
		found := policy.findings with input as samples.with_init_data(tee) with data.kbs.reference as references
		count(found) > 0
		every finding in found {
			finding.ok
		}
	}
}

test_good if {
	every tee, _ in samples.good {
		asserted := vector(samples.with_init_data(tee), references)
		asserted["instance-identity"] == 2
		asserted.hardware == 2
		asserted.executables == 3
	}
}

test_images if {
	vector(samples.document("snp"), references).executables == 33
	vector(samples.with_init_data("snp"), object.remove(references, ["allowed_images"])).executables == 33
	vector(samples.with_init_data("snp"), object.union(references, {"allowed_images": [samples.image]})).executables == 33
	more := put(
		samples.with_init_data("snp"), ["init_data_claims", "agent_policy_claims", "containers", "-"],
		samples.container({"io.kubernetes.cri.image-name": "other"}),
	)
	vector(more, references).executables == 33
	vector(put(samples.with_init_data("snp"), ["snp", "measurement"], "ff"), references).executables == 33
}

test_pulled if {
	pull := {"details": {"unicode_name": "AAEL", "data": {
		"operation": "PullImage", "content": {"image": "registry.example/b", "digest": "sha256:2"},
	}}}
	plain := json.remove(samples.with_init_data("tdx"), [["tdx", "runtime_events"]])
	foreign := put(plain, ["tdx", "uefi_event_logs", "-"], pull)
	document := put(samples.with_init_data("tdx"), ["tdx", "runtime_events", "-"], pull.details.data)
	vector(document, references).executables == 33
	vector(foreign, references).executables == 33
	allowed := array.concat(references.allowed_images, ["registry.example/b@sha256:2"])
	vector(document, object.union(references, {"allowed_images": allowed})).executables == 3
}

# One that is allowed does not excuse one that is not.
test_every_pull_counts if {
	good := {"operation": "PullImage", "content": {"image": "registry.example/b", "digest": "sha256:2"}}
	bad := {"operation": "PullImage", "content": {"image": "registry.example/c", "digest": "sha256:3"}}
	values := object.union(references, {"allowed_images": array.concat(references.allowed_images, ["registry.example/b@sha256:2"])})
	vector(put(samples.with_init_data("tdx"), ["tdx", "runtime_events"], [good, good]), values).executables == 3
	every events in [[good, bad], [bad, good], [bad], [good, {"operation": "PullImage", "content": "text"}]] {
		vector(put(samples.with_init_data("tdx"), ["tdx", "runtime_events"], events), values).executables == 33
	}
}

# A measured event that no label explains, and a log that somebody left out.
test_hidden_events if {
	relabelled := put(samples.with_init_data("tdx"), ["tdx", "event_log", "registers", 0, "events"], 1)
	vector(relabelled, references).executables == 33
	without := json.remove(samples.with_init_data("tdx"), [["tdx", "event_log"]])
	vector(without, references).executables == 33
	vector(put(without, ["tdx", "quote", "body", "rtmr_3"], "0000"), references).executables == 3
	vector(put(without, ["tdx", "quote", "body", "rtmr_3"], "0001"), references).executables == 33
	vector(put(samples.with_init_data("tpm"), ["tpm", "pcr17"], "0001"), references).executables == 33
}

test_rules_stand_in_for_the_document if {
	values := object.union(object.remove(references, ["init_data_digests"]), {"agent_policy_rules_digests": [samples.rules]})
	vector(samples.with_init_data("snp"), values)["instance-identity"] == 2
	permissive := put(samples.with_init_data("snp"), ["init_data_claims", "agent_policy_rules_sha256"], "00")
	vector(permissive, values)["instance-identity"] == 97
	hidden := json.remove(samples.with_init_data("snp"), [["init_data_claims", "agent_policy_rules_sha256"]])
	vector(hidden, values)["instance-identity"] == 97
}

test_pinned if {
	vector(samples.with_init_data("snp"), object.remove(references, ["init_data_digests"]))["instance-identity"] == 97
	trusting := object.union(object.remove(references, ["init_data_digests"]), {"insecure_trust_init_data_author": true})
	vector(samples.with_init_data("snp"), trusting)["instance-identity"] == 2
	vector(json.remove(samples.with_init_data("snp"), [["init_data"]]), trusting)["instance-identity"] == 97
}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
