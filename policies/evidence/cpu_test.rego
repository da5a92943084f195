package evidence_cpu_test

import data.kbs.samples
import data.policy

good := samples.good

references := samples.references

fixed := samples.fixed

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
		vector(samples.document(tee)) == expected(tee)
	}
}

expected("tpm") := {"executables": 3, "hardware": 2}

expected(tee) := {"executables": 3, "hardware": 2, "configuration": 2} if tee != "tpm"

test_revocation if {
	every tee, _ in good {
		affirming(json.patch(samples.document(tee), [put([tee, "revocation"], "not_applicable")]))
		affirming(json.patch(samples.document(tee), [
			put([tee, "revocation"], "not_checked"),
			put([tee, "revocation_waived"], true),
		]))
		not affirming(json.patch(samples.document(tee), [put([tee, "revocation"], "not_checked")]))
		not affirming(json.patch(samples.document(tee), [
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
		changed := json.patch(samples.document(tee), [put(array.concat([tee], path), value)])
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
		changed := json.patch(samples.document(tee), [put(array.concat([tee], path), "strange")])
		not is_affirming(vector(changed)[name])
	}
}

# An attestation key by enrolment, by reference value, by neither.
test_enrolled_attestation_keys if {
	strange := json.patch(samples.document("tpm"), [put(["tpm", "ak_public"], "strange")])
	affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], true)]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], false)]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], "true")]))
	not affirming(json.patch(strange, [put(["tpm", "ak_enrolled"], true), put(["tpm", "pcr11"], "strange")]))
	not affirming({"tpm": object.remove(
		object.union(samples.document("tpm").tpm, {"ak_enrolled": true}),
		["ak_public"],
	)})
}

# A clear SEPT_VE_DISABLE affirms only where an operator waived it, and the attribute is there at all.
test_waived_septve if {
	clear := json.patch(samples.document("tdx"), [put(["tdx", "td_attributes", "septve_disable"], false)])
	not affirming(clear)
	affirming(json.patch(clear, [put(["tdx", "septve_waived"], true)]))
	not affirming(json.patch(clear, [put(["tdx", "septve_waived"], "true")]))
	not affirming(json.patch(samples.document("tdx"), [
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
		strange := json.patch(samples.document("se"), [put(["se", claim], "strange")])
		not affirming(strange)
		affirming(json.patch(strange, [put(["se", listed], true)]))
		not affirming(json.patch(strange, [put(["se", listed], false)]))
		not affirming(json.patch(strange, [put(["se", listed], "true")]))
		not affirming({"se": object.remove(object.union(samples.document("se").se, {listed: true}), [claim])})
	}
}

# Firmware by the verifier's list, by reference value, by neither; what the list does not approve, no value does.
test_approved_firmware if {
	path := ["cca", "platform", "cca-platform-sw-components"]
	strange := json.patch(samples.document("cca"), [put(path, ["strange"])])
	not affirming(strange)
	affirming(json.patch(strange, listed("approved", true)))
	not affirming(json.patch(strange, listed("approved", false)))
	not affirming(json.patch(strange, listed("approved", "true")))
	not affirming(json.patch(samples.document("cca"), listed("unknown", false)))
	not affirming(json.patch(samples.document("cca"), array.concat(
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
	claims := policy.trust_claims with input as samples.document("sample")
		with data.kbs.reference as object.remove(references, ["minimum_minor_version"])
	claims.hardware == 97
}

test_lesser_values if {
	claims := policy.trust_claims with input as samples.document("snp")
		with data.kbs.reference as object.remove(references, ["snp_smt_enabled"])
	claims.configuration == 3
	unsigned := policy.trust_claims with input as samples.document("nitro")
		with data.kbs.reference as object.remove(references, ["nitro_pcr8"])
	unsigned.configuration == 3
	registers := policy.trust_claims with input as samples.document("tdx")
		with data.kbs.reference as object.remove(references, ["tdvfkernel"])
	registers.executables == 4
	vector({"tdx": object.union(samples.intel, fixed)}).executables == 4
}

# What is affirmed then follows from the evidence alone: up-to-date SGX hardware, an enrolled AK, an SE image of ours.
test_nothing_registered if {
	affirmed := {[tee, name] |
		some tee, _ in good
		claims := policy.trust_claims with input as samples.document(tee) with data.kbs.reference as {}
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
	vector(object.union(samples.document("snp"), samples.document("se"))) == nothing
	vector(object.union(samples.document("snp"), {"sample": null})) == nothing
}

test_findings if {
	every tee, _ in good {
		found := policy.findings with input as samples.document(tee) with data.kbs.reference as references
		count(found) > 0
		every finding in found {
			finding.ok == true
			finding.seen != null
		}
	}
}

test_findings_name_the_cause if {
	changed := json.patch(samples.document("snp"), [put(["snp", "reported_tcb_snp"], 22)])
	found := policy.findings with input as changed with data.kbs.reference as references
	[finding | some finding in found; not finding.ok] == [{
		"rule": "hardware", "claim": "snp.reported_tcb_snp", "reference": "snp_snp_svn",
		"seen": 22, "expected": [23], "ok": false, "comparison": "in",
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
