package evidence_cpu_test

import data.policy

fixed := {"binding": "checked", "revocation": "checked"}

intel := {
	"tcb_status": "UpToDate",
	"collateral_expiration_status": "0",
	"td_attributes": {"debug": false, "migratable": false, "septve_disable": true},
	"quote": {
		"header": {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
		"body": {"mr_td": "aa", "rtmr_1": "b1", "rtmr_2": "b2", "xfam": "e7", "td_attributes": "0000001000000000"},
	},
}

kernel_event := {
	"type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
	"digests": [{"alg": "SHA-384", "digest": "c1"}],
	"details": {"device_paths": ["VenMedia(…)", "File(kernel)"]},
}

command_line_event := {
	"type_name": "EV_EVENT_TAG",
	"digests": [{"alg": "SHA-384", "digest": "c2"}],
	"details": {"string": "LOADED_IMAGE::LoadOptions"},
}

good := {
	"sample": {
		"svn": "1", "launch_digest": "abcde", "debug": false,
		"platform_version": {"major": 1, "minor": 4},
	},
	"snp": {
		"measurement": "6a65", "vmpl": 0, "provisional_firmware": false,
		"reported_tcb_bootloader": 10, "reported_tcb_tee": 0, "reported_tcb_snp": 23, "reported_tcb_microcode": 25,
		"policy_debug_allowed": false, "policy_migrate_ma": false, "policy_smt_allowed": true,
		"policy_abi_major": 0, "policy_abi_minor": 31, "policy_single_socket": false,
		"platform_smt_enabled": true, "platform_tsme_enabled": false,
	},
	"tdx": object.union(intel, {"uefi_event_logs": [kernel_event, command_line_event]}),
	"sgx": {
		"tcb_status": "UpToDate", "collateral_expiration_status": "0",
		"header": {"vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
		"body": {"mr_enclave": "e1", "attributes.flags": "0500000000000000", "attributes.xfrm": "e700000000000000"},
	},
	"az-snp-vtpm": {
		"measurement": "bWVhcw==", "tpm": {"pcr11": "11"}, "vmpl": "0", "provisional_firmware": "false", "secure-boot": true,
		"boot_measured": true,
		"reported_tcb_bootloader": "3", "reported_tcb_tee": "0", "reported_tcb_snp": "8", "reported_tcb_microcode": "115",
		"policy_debug_allowed": "false", "policy_migrate_ma": "false", "policy_smt_allowed": "true",
		"policy_abi_major": "0", "policy_abi_minor": "31", "policy_single_socket": "false",
		"platform_smt_enabled": "true", "platform_tsme_enabled": "true",
	},
	"az-tdx-vtpm": object.union(intel, {"tpm": {"pcr11": "11"}, "secure-boot": true, "boot_measured": true}),
	"cca": {
		"platform_lifecycle": "secured", "platform_firmware": "not_checked", "platform_firmware_approved": false,
		"realm_measurements_fit": true,
		"realm": {
			"cca-realm-initial-measurement": "cmlt",
			"cca-realm-extensible-measurements": ["AAAA", "AAAA", "AAAA", "AAAA"],
		},
		"platform": {
			"cca-platform-implementation-id": "aW1wbA==", "cca-platform-config": "z8/Pzw==",
			"cca-platform-sw-components": [{"measurement-type": "RMM", "measurement-value": "cm1t", "signer-id": "c2ln"}],
		},
	},
	"nitro": {
		"document": "enclave", "debug": false,
		"pcr0": "a0", "pcr1": "a1", "pcr2": "a2", "pcr3": "a3", "pcr8": "a8",
	},
	"tpm": {"pcr11": "11", "ak_public": "MIIB", "boot_measured": true},
	"se": {"version": 256, "tag": "7a", "image_phkh": "1a", "attestation_phkh": "2a"},
	"csv": {"measure": "d1", "policy": {"nodbg": 1, "es": 1, "nosend": 1, "api_major": 1, "api_minor": 2}},
}

references := {
	"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4,
	"snp_launch_measurement": ["6a65"],
	"snp_bootloader": [10], "snp_microcode": [25], "snp_snp_svn": [23], "snp_tee_svn": [0],
	"snp_smt_enabled": true, "snp_tsme_enabled": false, "snp_guest_abi_major": 0, "snp_guest_abi_minor": 31,
	"snp_single_socket": false, "snp_smt_allowed": true,
	"mr_td": ["aa"], "rtmr_1": ["b1"], "rtmr_2": ["b2"], "xfam": ["e7"], "tdvfkernel": "c1", "tdvfkernelparams": "c2",
	"sgx_mr_enclave": ["e1"], "sgx_attributes_flags": ["0500000000000000", "0700000000000000", "0400000000000000"],
	"sgx_attributes_xfrm": ["e700000000000000"],
	"measurement": ["bWVhcw=="], "snp_pcr11": ["11"],
	"tcb_bootloader": ["3"], "tcb_microcode": ["115"], "tcb_snp": ["8"], "tcb_tee": ["0"],
	"smt_enabled": ["true"], "tsme_enabled": ["true"], "abi_major": ["0"], "abi_minor": ["31"],
	"single_socket": ["false"], "smt_allowed": ["true"],
	"se_tag": ["7a"], "se_image_phkh": ["1a"], "se_attestation_phkh": ["2a"],
	"cca_realm_initial_measurement": ["cmlt"],
	"cca_realm_extensible_measurements": [["AAAA", "AAAA", "AAAA", "AAAA"]],
	"cca_platform_implementation_id": ["aW1wbA=="], "cca_platform_config": ["z8/Pzw=="],
	"cca_platform_sw_components": [[{"measurement-type": "RMM", "measurement-value": "cm1t", "signer-id": "c2ln"}]],
	"nitro_pcr0": ["a0"], "nitro_pcr1": ["a1"], "nitro_pcr2": ["a2"], "nitro_pcr3": ["a3"], "nitro_pcr8": ["a8"],
	"nitrotpm_pcr4": ["b4"], "nitrotpm_pcr7": ["b7"], "nitrotpm_pcr12": ["bc"],
	"tdx_pcr11": ["11"], "tpm_pcr11": ["11"], "trusted_aks": ["MIIB"],
	"csv_measure": ["d1"], "csv_api_major": [1], "csv_api_minor": [2], "csv_es": [1], "csv_nosend": [1],
}

document(tee) := {tee: object.union(good[tee], fixed)}

vector(doc) := asserted if {
	claims := policy.trust_claims with input as doc with data.kbs.reference as references
	count(claims) == 8
	asserted := {name: value | some name, value in claims; value != 0}
}

nothing := {"executables": 33, "hardware": 97, "configuration": 36}

is_affirming(value) if {
	value > 1
	value < 32
}

# The broker's reading of a vector: the worst tier decides.
affirming(doc) if {
	asserted := vector(doc)
	every _, value in asserted {
		is_affirming(value)
	}
}

test_good if {
	every tee, _ in good {
		vector(document(tee)) == expected(tee)
	}
}

expected("tpm") := {"executables": 3, "hardware": 2}

expected(tee) := {"executables": 3, "hardware": 2, "configuration": 2} if tee != "tpm"

test_revocation if {
	every tee, _ in good {
		affirming(json.patch(document(tee), [put([tee, "revocation"], "not_applicable")]))
		affirming(json.patch(document(tee), [
			put([tee, "revocation"], "not_checked"),
			put([tee, "revocation_waived"], true),
		]))
		not affirming(json.patch(document(tee), [put([tee, "revocation"], "not_checked")]))
		not affirming(json.patch(document(tee), [
			put([tee, "revocation"], "not_checked"),
			put([tee, "revocation_waived"], "true"),
		]))
	}
}

put(path, value) := {"op": "add", "path": path, "value": value}

# Each of these claims forbids affirming: neither status nor hardware and configuration together.
forbidding := array.concat(
	[[tee, path, value] |
		some tee, _ in good
		some [path, value] in [[["binding"], "not_checked"], [["binding"], null], [["revocation"], "not_checked"]]
	],
	[
		["sample", ["debug"], true],
		["snp", ["vmpl"], 1],
		["snp", ["vmpl"], 3],
		["snp", ["vmpl"], "0"],
		["snp", ["vmpl"], false],
		["snp", ["policy_debug_allowed"], true],
		["snp", ["policy_debug_allowed"], "false"],
		["snp", ["policy_debug_allowed"], 0],
		["snp", ["policy_migrate_ma"], true],
		["snp", ["provisional_firmware"], true],
		["tdx", ["td_attributes", "debug"], true],
		["tdx", ["quote", "body", "td_attributes"], "0100001000000000"],
		["tdx", ["quote", "body", "td_attributes"], "1000001000000000"],
		["tdx", ["td_attributes", "migratable"], true],
		["tdx", ["td_attributes", "migratable"], null],
		["tdx", ["td_attributes", "septve_disable"], false],
		["tdx", ["td_attributes", "septve_disable"], null],
		["tdx", ["tcb_status"], "OutOfDate"],
		["tdx", ["tcb_status"], "SWHardeningNeeded"],
		["tdx", ["collateral_expiration_status"], "1"],
		["tdx", ["collateral_expiration_status"], 0],
		["tdx", ["quote", "header", "tee_type"], "00000000"],
		["sgx", ["body", "attributes.flags"], "0700000000000000"],
		["sgx", ["body", "attributes.flags"], "0400000000000000"],
		["sgx", ["tcb_status"], "OutOfDate"],
		["az-snp-vtpm", ["policy_debug_allowed"], "true"],
		["az-snp-vtpm", ["policy_debug_allowed"], true],
		["az-snp-vtpm", ["policy_migrate_ma"], "true"],
		["az-snp-vtpm", ["vmpl"], "1"],
		["az-snp-vtpm", ["provisional_firmware"], "true"],
		["az-snp-vtpm", ["secure-boot"], false],
		["az-tdx-vtpm", ["td_attributes", "debug"], true],
		["az-tdx-vtpm", ["td_attributes", "migratable"], true],
		["az-tdx-vtpm", ["td_attributes", "migratable"], null],
		["az-tdx-vtpm", ["quote", "body", "td_attributes"], "1000001000000000"],
		["az-tdx-vtpm", ["secure-boot"], false],
		["az-tdx-vtpm", ["secure-boot"], null],
		["az-tdx-vtpm", ["collateral_expiration_status"], "1"],
		["cca", ["platform_lifecycle"], "non_cca_platform_rot_debug"],
		["cca", ["platform_lifecycle"], "unknown"],
		["cca", ["platform_lifecycle"], null],
		["cca", ["platform_firmware"], "unknown"],
		["cca", ["platform_firmware"], null],
		["cca", ["platform", "cca-platform-sw-components"], []],
		["cca", ["platform", "cca-platform-implementation-id"], "strange"],
		["cca", ["platform", "cca-platform-config"], "strange"],
		["nitro", ["debug"], true],
		["nitro", ["debug"], null],
		["nitro", ["debug"], "false"],
		["nitro", ["document"], "nitrotpm"],
		["nitro", ["document"], "strange"],
		["nitro", ["document"], null],
		["csv", ["policy", "nodbg"], 0],
		["csv", ["policy", "nosend"], 0],
		["csv", ["policy", "es"], 0],
	],
)

test_forbidding if {
	every case in forbidding {
		[tee, path, value] := case
		changed := json.patch(document(tee), [put(array.concat([tee], path), value)])
		not affirming(changed)
		asserted := vector(changed)
		count({name | some name in ["hardware", "configuration"]; not is_affirming(object.get(asserted, name, 0))}) > 0
	}
}

# The measured values: a stranger's value keeps its trust claim from affirming.
test_measurements if {
	every case in [
		["sample", ["launch_digest"], "executables"],
		["sample", ["svn"], "hardware"],
		["snp", ["measurement"], "executables"],
		["snp", ["reported_tcb_snp"], "hardware"],
		["tdx", ["quote", "body", "rtmr_1"], "executables"],
		["tdx", ["quote", "body", "mr_td"], "hardware"],
		["tdx", ["quote", "body", "xfam"], "configuration"],
		["sgx", ["body", "mr_enclave"], "executables"],
		["az-snp-vtpm", ["tpm", "pcr11"], "executables"],
		["az-tdx-vtpm", ["tpm", "pcr11"], "executables"],
		["az-snp-vtpm", ["boot_measured"], "executables"],
		["az-tdx-vtpm", ["boot_measured"], "executables"],
		["tpm", ["ak_public"], "executables"],
		["tpm", ["boot_measured"], "executables"],
		["cca", ["realm", "cca-realm-initial-measurement"], "executables"],
		["cca", ["realm", "cca-realm-extensible-measurements"], "executables"],
		["cca", ["realm_measurements_fit"], "executables"],
		["nitro", ["pcr0"], "executables"],
		["nitro", ["pcr1"], "executables"],
		["nitro", ["pcr2"], "executables"],
		["csv", ["measure"], "executables"],
	] {
		[tee, path, name] := case
		changed := json.patch(document(tee), [put(array.concat([tee], path), "strange")])
		not is_affirming(vector(changed)[name])
	}
}

# An attestation key by enrolment, by reference value, by neither.
test_enrolled_attestation_keys if {
	strange := json.patch(document("tpm"), [put(["tpm", "ak_public"], "strange")])
	affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], true)]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], false)]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], "true")]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], true), put(["tpm", "pcr11"], "strange")]))
	not affirming({"tpm": object.remove(
		object.union(document("tpm").tpm, {"ak_enrolled": true}),
		["ak_public"],
	)})
}

# A clear SEPT_VE_DISABLE affirms only where an operator waived it, and the attribute is there at all.
test_waived_septve if {
	clear := json.patch(document("tdx"), [put(["tdx", "td_attributes", "septve_disable"], false)])
	not affirming(clear)
	affirming(json.patch(clear, [put(["tdx", "septve_waived"], true)]))
	not affirming(json.patch(clear, [put(["tdx", "septve_waived"], "true")]))
	not affirming(json.patch(document("tdx"), [
		put(["tdx", "td_attributes", "septve_disable"], null),
		put(["tdx", "septve_waived"], true),
	]))
}

# Images and host keys by the verifier's lists, by reference value, by neither.
test_listed_images_and_host_keys if {
	every case in [
		["tag", "image_listed"],
		["image_phkh", "host_keys_listed"],
		["attestation_phkh", "host_keys_listed"],
	] {
		[claim, listed] := case
		strange := json.patch(document("se"), [put(["se", claim], "strange")])
		not affirming(strange)
		affirming(json.patch(strange, [put(["se", listed], true)]))
		not affirming(json.patch(strange, [put(["se", listed], false)]))
		not affirming(json.patch(strange, [put(["se", listed], "true")]))
		not affirming({"se": object.remove(object.union(document("se").se, {listed: true}), [claim])})
	}
}

# Firmware by the verifier's list, by reference value, by neither; what the list does not approve, no value does.
test_approved_firmware if {
	path := ["cca", "platform", "cca-platform-sw-components"]
	strange := json.patch(document("cca"), [put(path, ["strange"])])
	not affirming(strange)
	affirming(json.patch(strange, listed("approved", true)))
	not affirming(json.patch(strange, listed("approved", false)))
	not affirming(json.patch(strange, listed("approved", "true")))
	not affirming(json.patch(document("cca"), listed("unknown", false)))
	not affirming(json.patch(document("cca"), array.concat(
		listed("approved", true),
		[{"op": "remove", "path": path}],
	)))
}

listed(firmware, is_approved) := [
	put(["cca", "platform_firmware"], firmware),
	put(["cca", "platform_firmware_approved"], is_approved),
]

instance := object.union(fixed, {
	"document": "nitrotpm",
	"nitrotpm_pcr4": "b4", "nitrotpm_pcr7": "b7", "nitrotpm_pcr12": "bc",
})

# The registers of an instance are approved by values of their own, and say nothing about debugging.
test_nitrotpm if {
	vector({"nitro": instance}) == {"executables": 3, "hardware": 2, "configuration": 2}
	vector({"nitro": object.union(instance, {"nitrotpm_pcr4": "a0"})}).executables == 33
	vector({"nitro": object.union(instance, {"nitrotpm_pcr12": "a0"})}).executables == 33
	vector({"nitro": object.union(instance, {"nitrotpm_pcr7": "a0"})}).configuration == 36
	vector({"nitro": object.union(instance, {"binding": "not_checked"})}).hardware == 97
	every name in ["nitrotpm_pcr4", "nitrotpm_pcr7", "nitrotpm_pcr12", "binding", "revocation"] {
		not affirming({"nitro": object.remove(instance, [name])})
	}
	not affirming({"nitro": object.union(instance, {"document": "enclave"})})
}

test_minimum_that_nobody_registered if {
	claims := policy.trust_claims with input as document("sample")
		with data.kbs.reference as object.remove(references, ["minimum_minor_version"])
	claims.hardware == 97
}

test_lesser_values if {
	claims := policy.trust_claims with input as document("snp")
		with data.kbs.reference as object.remove(references, ["snp_smt_enabled"])
	claims.configuration == 3
	unsigned := policy.trust_claims with input as document("nitro")
		with data.kbs.reference as object.remove(references, ["nitro_pcr8"])
	unsigned.configuration == 3
	registers := policy.trust_claims with input as document("tdx")
		with data.kbs.reference as object.remove(references, ["tdvfkernel"])
	registers.executables == 4
	vector({"tdx": object.union(intel, fixed)}).executables == 4
}

# What is affirmed then follows from the evidence alone: up-to-date SGX hardware, an enrolled AK, an SE image of ours.
test_nothing_registered if {
	affirmed := {[tee, name] |
		some tee, _ in good
		claims := policy.trust_claims with input as document(tee) with data.kbs.reference as {}
		some name in ["hardware", "executables"]
		is_affirming(claims[name])
	}
	affirmed == {["nitro", "hardware"], ["sgx", "hardware"], ["tpm", "hardware"]}
}

test_no_rules if {
	vector({}) == nothing
	vector({"unknown": {}}) == nothing
	vector({"cca": fixed}) == nothing
	vector({"nitro": fixed}) == nothing
	vector({"snp": null}) == nothing
	vector({"snp": "text"}) == nothing
	vector({"tdx": null}) == nothing
	vector({"sgx": []}) == nothing
}

test_two_tees_affirm_nothing if {
	vector(object.union(document("snp"), document("se"))) == nothing
	vector(object.union(document("snp"), {"sample": null})) == nothing
}

test_findings if {
	every tee, _ in good {
		found := policy.findings with input as document(tee) with data.kbs.reference as references
		count(found) > 0
		every finding in found {
			finding.ok == true
			finding.seen != null
		}
	}
}

test_findings_name_the_cause if {
	changed := json.patch(document("snp"), [put(["snp", "reported_tcb_snp"], 22)])
	found := policy.findings with input as changed with data.kbs.reference as references
	[finding | some finding in found; not finding.ok] == [{
		"rule": "hardware", "claim": "snp.reported_tcb_snp", "reference": "snp_snp_svn",
		"seen": 22, "expected": [23], "ok": false,
	}]
}

test_no_findings_without_rules if {
	policy.findings == [] with input as {"nitro": fixed}
	policy.findings == [] with input as {"unknown": fixed}
	policy.findings == [] with input as {}
}

containers := [
	{"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "img-a"}, "Process": {"User": {"UID": 1000}}}},
	{"OCI": {"Annotations": {}, "Process": {"User": {"UID": 0}}}},
]

identifiers(init_data_claims) := extension.value.validated if {
	some extension in policy.extensions with input as {"init_data_claims": init_data_claims}
	extension.name == "ear.trustee.identifiers"
	extension.key == -18
}

test_extensions if {
	identifiers({"agent_policy_claims": {"containers": containers}}) == {
		"container_images": ["img-a"],
		"container_uids": [1000, 0],
	}
	identifiers({"agent_policy_claims": {"containers": []}}) == {}
	identifiers({"agent_policy_claims": null}) == {}
	identifiers(null) == {}
	identifiers({"agent_policy_claims": {"containers": [{"OCI": {"Process": {"User": {"UID": 7}}}}]}}) == {"container_uids": [7]}
}
