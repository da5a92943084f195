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
	document := put(samples.with_init_data("tdx"), ["tdx", "uefi_event_logs", "-"], pull)
	vector(document, references).executables == 33
	allowed := array.concat(references.allowed_images, ["registry.example/b@sha256:2"])
	vector(document, object.union(references, {"allowed_images": allowed})).executables == 3
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
