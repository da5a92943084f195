package resource_with_plugins_test

import data.policy

named := ["external", "nebula-ca", "pkcs11", "provisioner", "resource", "spiffe"]

token(status) := {"submods": {"cpu0": {"ear.status": status, "ear.veraison.annotated-evidence": {"snp": {}}}}}

software := {"submods": {"cpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"sample": {}}}}}

mixed := {"submods": {
	"cpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"snp": {}}},
	"gpu0": {"ear.status": "warning", "ear.veraison.annotated-evidence": {}},
}}

test_each_named_plugin_as_the_default if {
	every plugin in named {
		policy.allow == true with input as token("affirming") with data.plugin as plugin
		every status in ["none", "warning", "contraindicated", "", null] {
			policy.allow == false with input as token(status) with data.plugin as plugin
		}
		every claims in [{}, {"submods": {}}, software, mixed] {
			policy.allow == false with input as claims with data.plugin as plugin
		}
	}
}

test_other_plugins if {
	every plugin in ["whoami", "PKCS11", "pkcs11/", "", null, ["pkcs11"], {"pkcs11": true}, "sample"] {
		policy.allow == false with input as token("affirming") with data.plugin as plugin
	}
	policy.allow == false with input as token("affirming")
}

test_findings_agree if {
	every plugin in array.concat(named, ["whoami", "sample"]) {
		every claims in [token("affirming"), token("warning"), software, mixed] {
			allowed := policy.allow with input as claims with data.plugin as plugin
			rows := policy.findings with input as claims with data.plugin as plugin
			count(rows) > 1
			rows[0].claim == "data.plugin"
			allowed == all_ok(rows)
		}
	}
}

test_findings_without_a_plugin if {
	rows := policy.findings with input as token("affirming")
	rows[0].ok == false
}

all_ok(rows) if {
	every row in rows { row.ok }
} else := false
