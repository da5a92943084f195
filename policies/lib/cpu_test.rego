package kbs.cpu_test

import data.kbs.cpu
import data.kbs.samples

test_one_tee if {
	every tee, _ in samples.good {
		cpu.tee == tee with input as samples.document(tee)
		cpu.table(tee).hardware.must with input as samples.document(tee)
		cpu.claims(tee).binding == "checked" with input as samples.document(tee)
	}
	not cpu.tee with input as {}
	not cpu.tee with input as object.union(samples.document("snp"), samples.document("tdx"))
	not cpu.table("unknown")
}

test_every_table_asks_for_binding_and_revocation if {
	every tee in cpu.tees {
		asked := {check[0] | some check in cpu.table(tee).hardware.must} with input as samples.document(tee)
		{"binding", "revocation"} - asked == set()
	}
	asked := {check[0] | some check in cpu.table("nitro").hardware.must} with input as {"nitro": {"document": "nitrotpm"}}
	{"binding", "revocation"} - asked == set()
}

test_derived_claims if {
	tdx := cpu.claims("tdx") with input as samples.document("tdx")
	tdx["uefi_event_logs[kernel].digests"] == ["c1"]
	tdx["uefi_event_logs[command line].digests"] == ["c2"]
	sgx := cpu.claims("sgx") with input as samples.document("sgx")
	sgx["body.attributes.flags[init, not debug]"] == true
	debug := json.patch(samples.document("sgx"), [{
		"op": "replace", "path": ["sgx", "body", "attributes.flags"], "value": "0700000000000000",
	}])
	other := cpu.claims("sgx") with input as debug
	other["body.attributes.flags[init, not debug]"] == false
}

test_identifiers if {
	[none] := cpu.extensions with input as samples.document("snp")
	none.value == {"validated": {}}
	[some_images] := cpu.extensions with input as samples.with_init_data("snp")
	some_images.value.validated == {"container_images": [samples.image], "container_uids": [65534, 65534]}
}
