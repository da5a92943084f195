package evidence_boot_only_test

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
	few := object.remove(references, ["snp_smt_enabled", "xfam", "sgx_attributes_xfrm"])
	vector(samples.document("snp"), few) == {"hardware": 2, "executables": 3, "configuration": 3}
	vector(samples.document("tdx"), few) == {"hardware": 2, "executables": 3, "configuration": 3}
	vector(samples.document("tdx"), object.remove(few, ["tdvfkernel"])).executables == 4
	vector(samples.document("tpm"), few) == {"hardware": 2, "executables": 3}
}

test_bad if {
	vector(put(samples.document("snp"), ["snp", "vmpl"], 1), references).configuration == 36
	vector(put(samples.document("snp"), ["snp", "measurement"], "ff"), references).executables == 33
	vector(samples.document("sgx"), object.remove(references, ["sgx_mr_enclave"])).executables == 33
}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
