package resource_sample_demo_test

import data.policy

hardware := ["az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "se", "sgx", "snp", "tdx", "tpm"]

appraisal(status, evidence) := {"ear.status": status, "ear.veraison.annotated-evidence": evidence}

token(tee) := {"submods": {"cpu0": appraisal("affirming", {tee: {}, "report_data": "00"})}}

allowed(claims) if policy.allow == true with input as claims with data.plugin as "resource"

refused(claims) if {
	policy.allow == false with input as claims with data.plugin as "resource"
	some finding in policy.findings with input as claims with data.plugin as "resource"
	finding.ok == false
	finding.rule == "allow"
}

test_sample_and_hardware if {
	every tee in array.concat(hardware, ["sample"]) {
		allowed(token(tee))
		found := policy.findings with input as token(tee) with data.plugin as "resource"
		every finding in found {
			finding.ok == true
		}
	}
}

test_refusals if {
	refused(token("sampledevice"))
	refused({"submods": {"cpu0": appraisal("affirming", {"snp": {}, "sample": {}})}})
	every status in ["none", "warning", "contraindicated", null, true] {
		refused({"submods": {"cpu0": appraisal(status, {"sample": {}})}})
	}
	refused({"submods": {"cpu0": {"ear.veraison.annotated-evidence": {"sample": {}}}}})
	refused({"submods": {"cpu0": {"ear.status": "affirming"}}})
	refused({"submods": {"gpu0": appraisal("affirming", {"sample": {}})}})
	every submods in [null, {}, [], "text"] {
		refused({"submods": submods})
	}
	refused({})
}

test_other_plugins if {
	policy.allow == false with input as token("sample") with data.plugin as "pkcs11"
	policy.allow == false with input as token("sample")
	some finding in policy.findings with input as token("sample")
	finding.claim == "data.plugin"
	finding.ok == false
}
