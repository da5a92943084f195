package evidence_same_release_test

import data.kbs.samples
import data.policy

release := object.union(samples.references, {"release": "A"})

vector(doc, known) := {name: value | some name, value in claims; value != 0} if {
	claims := policy.trust_claims with input as doc with data.kbs.reference_sets as by_name(known)
	count(claims) == 8
}

by_name(known) := {name: [set | some set in known; name in object.keys(set)] | some each in known; some name, _ in each}

put(doc, path, value) := json.patch(doc, [{"op": "add", "path": path, "value": value}])

test_no_tee_or_several if {
	every doc in [{}, {"unknown": {}}, object.union(samples.with_init_data("snp"), samples.with_init_data("tdx")), {"nitro": {"document": "x"}}, {"snp": null}] {
		vector(doc, [release]).hardware == 97
		vector(doc, [release]).executables == 33
	}
	every finding in policy.findings {
		not finding.ok
	} with input as {}
}

test_a_claim_of_every_tee_that_is_gone if {
	every tee, _ in samples.good {
		vector(json.remove(samples.with_init_data(tee), [[tee, "binding"]]), [release]).hardware == 97
		vector(json.remove(samples.with_init_data(tee), [[tee, "revocation"]]), [release]).hardware == 97
	}
}

test_findings_agree if {
	every tee, _ in samples.good {
		found := policy.findings with input as samples.with_init_data(tee) with data.kbs.reference_sets as by_name([release])
		count(found) > 0
		every finding in found {
			finding.ok
		}
	}
}

test_good if {
	every tee, _ in samples.good {
		asserted := vector(samples.document(tee), [release])
		asserted.hardware == 2
		asserted.executables == 3
		object.get(asserted, "configuration", 2) == 2
		vector(samples.document(tee), [{"release": "0"}, object.union(release, {"release": "B"})]) == asserted
	}
}

test_values_by_themselves_approve_nothing if {
	every tee, _ in samples.good {
		claims := policy.trust_claims with input as samples.document(tee) with data.kbs.reference as samples.references
		claims.executables == 33
		claims.hardware == 97
	}
}

test_mixed_releases if {
	other := object.union(release, {"release": "B", "rtmr_1": ["d1"], "rtmr_2": ["d2"]})
	mixed := put(samples.document("tdx"), ["tdx", "quote", "body", "rtmr_2"], "d2")
	vector(mixed, [release, other]) == {"hardware": 97, "executables": 33, "configuration": 36}
	whole := put(mixed, ["tdx", "quote", "body", "rtmr_1"], "d1")
	vector(whole, [release, other]) == {"hardware": 2, "executables": 3, "configuration": 2}
	found := policy.findings with input as mixed with data.kbs.reference_sets as by_name([release, other])
	{finding.claim | some finding in found; not finding.ok} == {"tdx[one set]", "tdx.quote.body.rtmr_2[rtmr_2 of A]"}
}

test_optional_rows_are_of_the_same_release if {
	without := object.remove(release, ["tdvfkernel"])
	vector(samples.document("tdx"), [without]) == {"hardware": 2, "executables": 4, "configuration": 2}
	vector(samples.document("tdx"), [without, release]) == {"hardware": 2, "executables": 3, "configuration": 2}
	other := object.union(release, {"rtmr_1": ["d1"]})
	vector(samples.document("tdx"), [without, other]) == {"hardware": 2, "executables": 4, "configuration": 2}
}

test_what_the_claims_waive_needs_no_value if {
	waived := object.union(samples.document("tpm"), {"tpm": object.union(samples.document("tpm").tpm, {"ak_enrolled": true})})
	vector(waived, [object.remove(release, ["trusted_aks"])]) == {"hardware": 2, "executables": 3}
	vector(samples.document("tpm"), [object.remove(release, ["trusted_aks"])]).executables == 33
}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
