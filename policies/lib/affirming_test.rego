package kbs.affirming_test

import data.kbs.affirming
import data.kbs.samples

test_condition if {
	affirming.resource with input as samples.token("snp", 2) with data.plugin as "resource"
	not affirming.resource with input as samples.token("snp", 2) with data.plugin as "pkcs11"
	not affirming.resource with input as samples.token("sample", 2) with data.plugin as "resource"
	not affirming.resource with input as {} with data.plugin as "resource"
}

test_findings if {
	good := affirming.findings with input as samples.token("snp", 2) with data.plugin as "resource"
	every finding in good {
		finding.ok
	}
	bad := affirming.findings with input as {"submods": {"cpu0": null}} with data.plugin as "resource"
	{finding.claim | some finding in bad; not finding.ok} == {
		"submods.cpu0.ear.status",
		"submods.cpu0.ear.veraison.annotated-evidence",
	}
	some other in affirming.findings with input as {}
	other.claim == "data.plugin"
	other.seen == null
}

test_parts if {
	affirming.segment(1) == "key" with data["resource-path"] as ["default", "key"]
	affirming.segment(2) == null with data["resource-path"] as ["default", "key"]
	affirming.segment(0) == null with data["resource-path"] as "default"
	affirming.segment(0) == null
	affirming.cpu == {} with input as {}
	affirming.cpu.init_data == "3a5f" with input as samples.token("snp", 2)
	affirming.recognized.ok == true with input as samples.token("snp", 2)
	every value in [0, 97, null, "2", true] {
		affirming.recognized.ok == false with input as samples.token("snp", value)
	}
	affirming.recognized.ok == false with input as {}
}
