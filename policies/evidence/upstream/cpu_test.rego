package evidence_upstream_cpu_test

import data.policy

# The whole of upstream's decisions stands in the test vectors; here is every rule once.
intel := {
	"tcb_status": "UpToDate",
	"collateral_expiration_status": "0",
	"td_attributes": {"debug": false},
	"tpm": {"pcr11": "11"},
	"quote": {
		"header": {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
		"body": {"mr_td": "aa", "rtmr_1": "b1", "rtmr_2": "b2", "xfam": "e7"},
	},
	"uefi_event_logs": [
		{
			"type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
			"digests": [{"alg": "SHA-384", "digest": "c1"}],
			"details": {"device_paths": ["File(kernel)"]},
		},
		{
			"type_name": "EV_EVENT_TAG",
			"digests": [{"alg": "SHA-384", "digest": "c2"}],
			"details": {"string": "LOADED_IMAGE::LoadOptions"},
		},
	],
}

good := {
	"sample": {
		"svn": "1", "launch_digest": "abcde", "debug": false,
		"platform_version": {"major": 1, "minor": 4},
	},
	"snp": {
		"measurement": "6a65",
		"reported_tcb_bootloader": 10, "reported_tcb_tee": 0, "reported_tcb_snp": 23, "reported_tcb_microcode": 25,
		"policy_debug_allowed": false, "policy_migrate_ma": false, "policy_smt_allowed": true,
		"policy_abi_major": 0, "policy_abi_minor": 31, "policy_single_socket": false,
		"platform_smt_enabled": true, "platform_tsme_enabled": false,
	},
	"tdx": intel,
	"az-tdx-vtpm": intel,
	"az-snp-vtpm": {
		"measurement": "bWVhcw==", "tpm": {"pcr11": "11"},
		"reported_tcb_bootloader": "3", "reported_tcb_tee": "0", "reported_tcb_snp": "8", "reported_tcb_microcode": "115",
		"policy_smt_allowed": "true", "policy_abi_major": "0", "policy_abi_minor": "31",
		"policy_single_socket": "false", "platform_smt_enabled": "true", "platform_tsme_enabled": "true",
	},
	"tpm": {"pcr11": "11", "ak_public": "MIIB"},
	"se": {"version": 1},
}

references := {
	"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4,
	"snp_launch_measurement": ["6a65"],
	"snp_bootloader": [10], "snp_microcode": [25], "snp_snp_svn": [23], "snp_tee_svn": [0],
	"snp_smt_enabled": true, "snp_tsme_enabled": false, "snp_guest_abi_major": 0, "snp_guest_abi_minor": 31,
	"snp_single_socket": false, "snp_smt_allowed": true,
	"mr_td": ["aa"], "rtmr_1": ["b1"], "rtmr_2": ["b2"], "xfam": ["e7"], "tdvfkernel": "c1", "tdvfkernelparams": "c2",
	"measurement": ["bWVhcw=="], "snp_pcr11": ["11"],
	"tcb_bootloader": ["3"], "tcb_microcode": ["115"], "tcb_snp": ["8"], "tcb_tee": ["0"],
	"smt_enabled": ["true"], "tsme_enabled": ["true"], "abi_major": ["0"], "abi_minor": ["31"],
	"single_socket": ["false"], "smt_allowed": ["true"],
	"tdx_pcr11": ["11"], "tpm_pcr11": ["11"], "trusted_aks": ["MIIB"],
}

vector(document, values) := {name: value | some name, value in found; value != 0} if {
	found := policy.trust_claims with input as document with data.kbs.reference as values
	count(found) == 8
}

test_good if {
	every tee, claims in good {
		asserted := vector({tee: claims}, references)
		asserted.executables == 3
		asserted.hardware == 2
		object.get(asserted, "configuration", 0) == configuration(tee)
	}
}

configuration("tpm") := 0

configuration(tee) := 2 if tee != "tpm"

test_lesser_values if {
	vector({"snp": good.snp}, {}) == {"executables": 33, "hardware": 97, "configuration": 3}
	vector({"tdx": intel}, object.remove(references, ["tdvfkernelparams"])).executables == 4
}

test_no_rules if {
	every tee in ["cca", "csv", "sgx", "unknown"] {
		vector({tee: {}}, references) == {"executables": 33, "hardware": 97, "configuration": 36}
	}
}

# Upstream's own, kept on purpose: Rego orders null below every number.
test_minimum_that_nobody_registered if {
	vector({"sample": good.sample}, object.remove(references, ["minimum_minor_version"])).hardware == 2
}

test_extensions if {
	containers := [{"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "img-a"}, "Process": {"User": {"UID": 1000}}}}]
	policy.extensions == [{
		"name": "ear.trustee.identifiers", "key": -18,
		"value": {"validated": {"container_images": ["img-a"], "container_uids": [1000]}},
	}] with input as {"init_data_claims": {"agent_policy_claims": {"containers": containers}}}
	policy.extensions[0].value == {"validated": {}} with input as {"init_data_claims": null}
}
