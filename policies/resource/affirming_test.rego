package resource_affirming_test

import data.policy

hardware := ["az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "se", "sgx", "snp", "tdx", "tpm"]

appraisal(status, evidence) := {"ear.status": status, "ear.veraison.annotated-evidence": evidence}

token(tee) := {"submods": {"cpu0": appraisal("affirming", {tee: {}, "report_data": "00"})}}

allowed(claims) if policy.allow == true with input as claims with data.plugin as "resource"

with_device(device) := json.patch(token("snp"), [{"op": "add", "path": ["submods", "gpu0"], "value": device}])

test_hardware if {
	every tee in hardware {
		allowed(token(tee))
	}
}

test_devices if {
	allowed(with_device(appraisal("affirming", {"nvidia": {}})))
	allowed(with_device({"ear.status": "affirming"}))
}

test_other_plugins if {
	every plugin in ["pkcs11", "Resource", "resource/", "", null, ["resource"]] {
		policy.allow == false with input as token("snp") with data.plugin as plugin
	}
	policy.allow == false with input as token("snp")
}

test_status if {
	every status in ["none", "warning", "contraindicated", "Affirming", "", null, true, 2, ["affirming"]] {
		refused({"submods": {"cpu0": appraisal(status, {"snp": {}})}})
		refused(with_device(appraisal(status, {"nvidia": {}})))
	}
	refused({"submods": {"cpu0": {"ear.veraison.annotated-evidence": {"snp": {}}}}})
	refused(with_device({"ear.veraison.annotated-evidence": {"nvidia": {}}}))
}

refused(claims) if {
	policy.allow == false with input as claims with data.plugin as "resource"
	some finding in policy.findings with input as claims with data.plugin as "resource"
	finding.ok == false
	finding.rule == "allow"
}

test_software if {
	refused(token("sample"))
	refused(token("sampledevice"))
	every tee in ["sample", "sampledevice"] {
		every claims in [{}, null, false, {"svn": "1"}] {
			refused(with_device(appraisal("affirming", {tee: claims})))
			refused({"submods": {"cpu0": appraisal("affirming", {"snp": {}, tee: claims})}})
		}
	}
}

test_cpu if {
	refused(token("nvidia"))
	refused(token("unknown"))
	refused({"submods": {"cpu0": appraisal("affirming", {"snp": {}, "tdx": {}})}})
	refused({"submods": {"cpu0": appraisal("affirming", {})}})
	refused({"submods": {"cpu0": {"ear.status": "affirming"}}})
	refused({"submods": {"cpu1": appraisal("affirming", {"snp": {}})}})
	refused({"submods": {"gpu0": appraisal("affirming", {"nvidia": {}})}})
}

test_shapes if {
	every submods in [null, {}, [], "text", 1, [appraisal("affirming", {"snp": {}})]] {
		refused({"submods": submods})
	}
	refused({})
	every evidence in [null, [], ["snp"], "snp", 1] {
		refused({"submods": {"cpu0": appraisal("affirming", evidence)}})
		refused(with_device(appraisal("affirming", evidence)))
	}
	every other in [null, [], "affirming", 1] {
		refused({"submods": {"cpu0": other}})
		refused(with_device(other))
	}
}

test_findings if {
	found := policy.findings with input as token("snp") with data.plugin as "resource"
	count(found) == 5
	every finding in found {
		finding.ok == true
	}
}

test_findings_name_the_cause if {
	claims := with_device(appraisal("warning", {"sampledevice": {}}))
	found := policy.findings with input as claims with data.plugin as "resource"
	[finding | some finding in found; not finding.ok] == [
		{
			"rule": "allow", "claim": "submods.gpu0.ear.status", "reference": null,
			"seen": "warning", "expected": "affirming", "ok": false,
		},
		{
			"rule": "allow", "claim": "submods.gpu0.ear.veraison.annotated-evidence.sampledevice", "reference": null,
			"seen": "present", "expected": null, "ok": false,
		},
	]
	some cpu in policy.findings with input as token("sample")
	cpu.claim == "submods.cpu0.ear.veraison.annotated-evidence"
	cpu.seen == null
	cpu.expected == hardware
}
