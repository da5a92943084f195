package evidence_tcb_grace_test

import data.kbs.samples
import data.policy

references := object.union(samples.references, {"tcb_grace_days": 30})

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

late(tee, status, days) := json.patch(samples.document(tee), [
	{"op": "add", "path": [tee, "tcb_status"], "value": status},
	{"op": "add", "path": [tee, "tcb_out_of_date_days"], "value": days},
])

test_up_to_date_needs_no_days if {
	every tee in ["tdx", "sgx", "az-tdx-vtpm"] {
		vector(late(tee, "UpToDate", 0), samples.references).hardware == 2
		vector(late(tee, "UpToDate", 0), references).hardware == 2
	}
	vector(samples.document("snp"), samples.references).hardware == 2
}

test_grace if {
	every tee in ["tdx", "sgx", "az-tdx-vtpm"] {
		every status in ["OutOfDate", "TDRelaunchAdvised"] {
			vector(late(tee, status, 1), references).hardware == 3
			vector(late(tee, status, 30), references).hardware == 3
			vector(late(tee, status, 31), references).hardware == 97
			vector(late(tee, status, "1"), references).hardware == 97
			vector(late(tee, status, null), references).hardware == 97
			vector(late(tee, status, 1), samples.references).hardware == 97
			vector(late(tee, status, 1), object.union(references, {"tcb_grace_days": "30"})).hardware == 97
		}
		every status in ["OutOfDateConfigurationNeeded", "SWHardeningNeeded", "ConfigurationNeeded", "Revoked", null] {
			vector(late(tee, status, 1), references).hardware == 97
		}
	}
	vector(put(late("tdx", "OutOfDate", 1), ["tdx", "quote", "body", "mr_td"], "ff"), references).hardware == 97
}

test_findings_name_the_days if {
	found := policy.findings with input as late("tdx", "OutOfDate", 31) with data.kbs.reference as references
	some finding in found
	finding.reference == "tcb_grace_days"
	finding.claim == "tdx.tcb_out_of_date_days"
	finding.seen == 31
	finding.expected == 30
	finding.ok == false
}

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
