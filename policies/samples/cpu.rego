# Claims of every TEE as its verifier makes them when all is well, and the reference values that approve them: what the
# tests of policies begin with. Values are made up; their types are those of the real ones.
package kbs.samples

# What every verifier says of a fresh, bound report.
fixed := {"binding": "checked", "revocation": "checked"}

intel := {
	"tcb_status": "UpToDate", "tcb_out_of_date_days": 0,
	"collateral_expiration_status": "0",
	"td_attributes": {"debug": false, "migratable": false, "septve_disable": true},
	"quote": {
		"header": {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
		"body": {"mr_td": "aa", "rtmr_1": "b1", "rtmr_2": "b2", "xfam": "e7", "td_attributes": "0000001000000000"},
	},
}

# A PCR that nothing was measured into.
untouched := "0000000000000000000000000000000000000000000000000000000000000000"

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
	"tdx": object.union(intel, {
		"uefi_event_logs": [kernel_event, command_line_event],
		"runtime_events": [],
		"event_log": {"registers": [{"index": 4, "events": 0, "recomputed": 0, "runtime_events": 0}]},
	}),
	"sgx": {
		"tcb_status": "UpToDate", "tcb_out_of_date_days": 0, "collateral_expiration_status": "0",
		"header": {"vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
		"body": {"mr_enclave": "e1", "attributes.flags": "0500000000000000", "attributes.xfrm": "e700000000000000"},
	},
	"az-snp-vtpm": {
		"measurement": "bWVhcw==", "tpm": {"pcr11": "11", "pcr17": untouched}, "vmpl": "0", "provisional_firmware": "false", "secure-boot": true,
		"boot_measured": true,
		"reported_tcb_bootloader": "3", "reported_tcb_tee": "0", "reported_tcb_snp": "8", "reported_tcb_microcode": "115",
		"policy_debug_allowed": "false", "policy_migrate_ma": "false", "policy_smt_allowed": "true",
		"policy_abi_major": "0", "policy_abi_minor": "31", "policy_single_socket": "false",
		"platform_smt_enabled": "true", "platform_tsme_enabled": "true",
	},
	"az-tdx-vtpm": object.union(intel, {"tpm": {"pcr11": "11", "pcr17": untouched}, "secure-boot": true, "boot_measured": true}),
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
	"tpm": {"pcr11": "11", "pcr17": untouched, "ak_public": "MIIB", "boot_measured": true},
	"se": {"version": 256, "tag": "7a", "image_phkh": "1a", "attestation_phkh": "2a"},
	"csv": {"measure": "d1", "rtmr4": untouched, "policy": {"nodbg": 1, "es": 1, "nosend": 1, "api_major": 1, "api_minor": 2}},
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

# One verifier's input for a policy.
document(tee) := {tee: object.union(good[tee], fixed)}

# The same with init data: two containers and a pod's pause container, of one pod in one namespace.
with_init_data(tee) := object.union(document(tee), {
	"init_data": "3a5f",
	"init_data_claims": {
		"agent_policy_claims": {"containers": [
			container({"io.kubernetes.cri.container-type": "sandbox"}),
			container({"io.kubernetes.cri.image-name": image}),
		]},
		"agent_policy_rules_sha256": rules,
	},
})

rules := "7e57000000000000000000000000000000000000000000000000000000000000"

image := "registry.example/payments/api@sha256:1111111111111111111111111111111111111111111111111111111111111111"

container(annotations) := {"OCI": {
	"Annotations": object.union(
		{"io.kubernetes.cri.sandbox-namespace": "payments", "io.kubernetes.cri.sandbox-name": "api-0"},
		annotations,
	),
	"Process": {"User": {"UID": 65534}},
}}

# A token that this broker issues for that guest; `identity`: what its evidence policy said of the workload.
token(tee, identity) := {"submods": {"cpu0": {
	"ear.status": "affirming",
	"ear.trustworthiness-vector": {"hardware": 2, "executables": 3, "instance-identity": identity},
	"ear.veraison.annotated-evidence": with_init_data(tee),
}}}
