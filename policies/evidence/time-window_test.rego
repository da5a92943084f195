package evidence_time_window_test

import data.kbs.samples
import data.policy

references := object.union(samples.references, {"window_begins": "2000-01-01T00:00:00Z", "window_ends": "2200-01-01T00:00:00+01:00"})

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
		asserted.configuration == 2
	}
}

test_outside if {
	bad({"window_ends": "2001-01-01T00:00:00Z"})
	bad({"window_begins": "2199-01-01T00:00:00Z"})
	every value in [null, "tomorrow", 1, ["2000-01-01T00:00:00Z"], ""] {
		bad({"window_begins": value})
		bad({"window_ends": value})
	}
	vector(samples.document("snp"), samples.references).configuration == 36
}

test_borders if {
	values := object.union(references, {"window_begins": "2026-06-15T00:00:00Z", "window_ends": "2026-06-16T00:00:00Z"})
	begins := time.parse_rfc3339_ns("2026-06-15T00:00:00Z")
	ends := time.parse_rfc3339_ns("2026-06-16T00:00:00Z")
	vector_at(begins - 1, values).configuration == 36
	vector_at(begins, values).configuration == 2
	vector_at(ends - 1, values).configuration == 2
	vector_at(ends, values).configuration == 36
}

vector_at(now, values) := claims if {
	claims := policy.trust_claims with input as samples.document("snp")
		with data.kbs.reference as values
		with time.now_ns as now
}

bad(changed) if vector(samples.document("snp"), object.union(references, changed)).configuration == 36

test_identifiers if {
	[extension] := policy.extensions with input as samples.with_init_data("snp")
	extension.value.validated.container_images == [samples.image]
}
