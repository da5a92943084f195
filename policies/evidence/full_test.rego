package evidence_full_test

import data.kbs.samples
import data.policy

references := object.union(samples.references, {})

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
		asserted := vector(samples.document(tee), references)
		asserted.hardware == 2
		asserted.executables == 3
		object.get(asserted, "configuration", 2) == 2
	}
}

test_what_the_default_lets_pass if {
	vector(put(samples.document("snp"), ["snp", "platform_smt_enabled"], false), references) == {"hardware": 2, "executables": 3, "configuration": 36}
	vector(json.remove(samples.document("tdx"), [["tdx", "uefi_event_logs"]]), references) == {"hardware": 2, "executables": 33, "configuration": 2}
	vector(samples.document("nitro"), object.remove(references, ["nitro_pcr8"])).configuration == 36
}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
