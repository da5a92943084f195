package evidence_namespace_test

import data.kbs.samples
import data.policy

references := object.union(samples.references, {"allowed_namespaces": ["payments"], "init_data_digests": ["3a5f"]})

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

test_bad if {
	bad(samples.document("snp"), references)
	bad(samples.with_init_data("snp"), object.remove(references, ["allowed_namespaces"]))
	bad(samples.with_init_data("snp"), object.union(references, {"allowed_namespaces": ["other"]}))
	bad(samples.with_init_data("snp"), object.remove(references, ["init_data_digests"]))
	bad(
		put(
			samples.with_init_data("snp"), ["init_data_claims", "agent_policy_claims", "containers", "-"],
			samples.container({"io.kubernetes.cri.sandbox-namespace": "other"}),
		),
		references,
	)
	bad(put(samples.with_init_data("snp"), ["init_data_claims", "agent_policy_claims", "containers", "-"], {}), references)
}

bad(doc, values) if vector(doc, values) == {"hardware": 2, "executables": 3, "configuration": 2, "instance-identity": 97}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
