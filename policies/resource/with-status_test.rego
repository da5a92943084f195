package resource_with_status_test

import data.policy

token(status) := {"submods": {"cpu0": {"ear.status": status, "ear.veraison.annotated-evidence": {"snp": {}}}}}

test_resources_as_the_default if {
	policy.allow == true with input as token("affirming") with data.plugin as "resource"
	every status in ["none", "warning", "contraindicated", "", null] {
		policy.allow == false with input as token(status) with data.plugin as "resource"
	}
	policy.allow == false with input as {} with data.plugin as "resource"
}

test_whoami_to_everybody if {
	every claims in [token("affirming"), token("contraindicated"), {"submods": {"cpu0": {}}}, {}] {
		policy.allow == true with input as claims with data.plugin as "whoami"
	}
}

test_other_plugins if {
	every plugin in ["pkcs11", "Whoami", "whoami/", "", null, ["whoami"]] {
		policy.allow == false with input as token("affirming") with data.plugin as plugin
	}
	policy.allow == false with input as token("affirming")
}

test_findings_agree if {
	every plugin in ["resource", "whoami", "pkcs11"] {
		every status in ["affirming", "warning"] {
			allowed := policy.allow with input as token(status) with data.plugin as plugin
			rows := policy.findings with input as token(status) with data.plugin as plugin
			count(rows) > 0
			allowed == all_ok(rows)
		}
	}
}

all_ok(rows) if {
	every row in rows { row.ok }
} else := false
