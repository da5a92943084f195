# What is expected of each CPU TEE's claims: the tables behind the default policy of class cpu and its profiles.
#
# Claims, reference values and numbers are those of upstream's default policy (attestation-service 2.5). Added are the
# positive conditions of a broker that must not be talked down: a claim that forbids affirming (debug, VMPL, migration
# agent, provisional firmware, unchecked revocation or binding …) has to be there and has to be good.
#
# Every comparison is a row of a table (kbs.checks): claim, comparison, constant or reference value. Policies of your own
# may `import data.kbs.cpu`.
package kbs.cpu

import data.kbs.identity

tees := {"az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "sample", "se", "sgx", "snp", "tdx", "tpm"}

named := tees & object.keys(input)

# Claims of exactly one TEE. Two of them never come from one verifier, so nothing is affirmed then.
tee := name if {
	count(named) == 1
	some name in named
}

# What the rows look at: the TEE's claims; for tdx and sgx with what has to be worked out beside them.
claims(name) := input[name] if not name in {"tdx", "sgx"}

claims("tdx") := object.union(input.tdx, {
	"uefi_event_logs[kernel].digests": kernel_digests,
	"uefi_event_logs[command line].digests": command_line_digests,
})

claims("sgx") := object.union(input.sgx, {"body.attributes.flags[init, not debug]": sgx_production})

kernel_digests := [digest.digest |
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	"File(kernel)" in event.details.device_paths
	some digest in event.digests
]

command_line_digests := [digest.digest |
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EVENT_TAG"
	event.details.string == "LOADED_IMAGE::LoadOptions"
	some digest in event.digests
]

# Flags are little endian: in the first byte INIT (bit 0) set and DEBUG (bit 1) clear (Intel SDM vol. 3D, ATTRIBUTES).
sgx_production if {
	substring(input.sgx.body["attributes.flags"], 1, 1) in {"1", "5", "9", "d"}
} else := false

# The sample TEE signs nothing. That it is switched on is the verifier's business, that its tokens open nothing the
# resource policy's.
table("sample") := {
	"executables": {"must": [["launch_digest", "in", "launch_digest"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["svn", "in", "svn"],
		[["platform_version", "major"], "equals", "major_version"],
		[["platform_version", "minor"], "at least", "minimum_minor_version"],
	]},
	"configuration": {"must": [["debug", "is", false]]},
}

table("snp") := {
	"executables": {"must": [["measurement", "in", "snp_launch_measurement"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["provisional_firmware", "is", false],
		["reported_tcb_bootloader", "in", "snp_bootloader"],
		["reported_tcb_microcode", "in", "snp_microcode"],
		["reported_tcb_snp", "in", "snp_snp_svn"],
		["reported_tcb_tee", "in", "snp_tee_svn"],
	]},
	"configuration": {
		"must": [
			["vmpl", "is", 0],
			["policy_debug_allowed", "is", false],
			["policy_migrate_ma", "is", false],
		],
		"better": [
			["platform_smt_enabled", "equals", "snp_smt_enabled"],
			["platform_tsme_enabled", "equals", "snp_tsme_enabled"],
			["policy_abi_major", "equals", "snp_guest_abi_major"],
			["policy_abi_minor", "equals", "snp_guest_abi_minor"],
			["policy_single_socket", "equals", "snp_single_socket"],
			["policy_smt_allowed", "equals", "snp_smt_allowed"],
		],
	},
}

# TD attributes are little endian: the first byte holds DEBUG and the other bits that open a TD to its host (Intel TDX
# module, TD_ATTRIBUTES.TUD); all of them must be clear. MIGRATABLE: a migration TD may move it elsewhere.
# SEPT_VE_DISABLE clear: its host may inject exceptions where the guest expects none.
table("tdx") := {
	"executables": {
		"must": [
			[["quote", "body", "rtmr_1"], "in", "rtmr_1"],
			[["quote", "body", "rtmr_2"], "in", "rtmr_2"],
		],
		"better": [
			["uefi_event_logs[kernel].digests", "contains", "tdvfkernel"],
			["uefi_event_logs[command line].digests", "contains", "tdvfkernelparams"],
		],
	},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["tcb_status", "is", "UpToDate"],
		["collateral_expiration_status", "is", "0"],
		[["quote", "header", "tee_type"], "is", "81000000"],
		[["quote", "header", "vendor_id"], "is", "939a7233f79c4ca9940a0db3957f0607"],
		[["quote", "body", "mr_td"], "in", "mr_td"],
	]},
	"configuration": {"must": [
		[["td_attributes", "debug"], "is", false],
		[["quote", "body", "td_attributes"], "begins", "00"],
		[["td_attributes", "migratable"], "is", false],
		[["td_attributes", "septve_disable"], "is", true, "septve_waived"],
		[["quote", "body", "xfam"], "in", "xfam"],
	]},
}

table("sgx") := {
	"executables": {"must": [[["body", "mr_enclave"], "in", "sgx_mr_enclave"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["tcb_status", "is", "UpToDate"],
		["collateral_expiration_status", "is", "0"],
		[["header", "vendor_id"], "is", "939a7233f79c4ca9940a0db3957f0607"],
	]},
	"configuration": {"must": [
		["body.attributes.flags[init, not debug]", "is", true],
		[["body", "attributes.flags"], "in", "sgx_attributes_flags"],
		[["body", "attributes.xfrm"], "in", "sgx_attributes_xfrm"],
	]},
}

# The SNP claims of Azure's vTPM evidence are text; a verifier that types them satisfies the fixed rows as well.
table("az-snp-vtpm") := {
	"executables": {"must": [
		["measurement", "in", "measurement"],
		[["tpm", "pcr11"], "in", "snp_pcr11"],
		["boot_measured", "is", true],
	]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["provisional_firmware", "one of", [false, "false"]],
		["reported_tcb_bootloader", "in", "tcb_bootloader"],
		["reported_tcb_microcode", "in", "tcb_microcode"],
		["reported_tcb_snp", "in", "tcb_snp"],
		["reported_tcb_tee", "in", "tcb_tee"],
	]},
	"configuration": {"must": [
		["vmpl", "one of", [0, "0"]],
		["policy_debug_allowed", "one of", [false, "false"]],
		["policy_migrate_ma", "one of", [false, "false"]],
		["secure-boot", "is", true],
		["platform_smt_enabled", "in", "smt_enabled"],
		["platform_tsme_enabled", "in", "tsme_enabled"],
		["policy_abi_major", "in", "abi_major"],
		["policy_abi_minor", "in", "abi_minor"],
		["policy_single_socket", "in", "single_socket"],
		["policy_smt_allowed", "in", "smt_allowed"],
	]},
}

table("az-tdx-vtpm") := {
	"executables": {"must": [
		[["tpm", "pcr11"], "in", "tdx_pcr11"],
		["boot_measured", "is", true],
	]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["tcb_status", "is", "UpToDate"],
		["collateral_expiration_status", "is", "0"],
		[["quote", "header", "tee_type"], "is", "81000000"],
		[["quote", "header", "vendor_id"], "is", "939a7233f79c4ca9940a0db3957f0607"],
		[["quote", "body", "mr_td"], "in", "mr_td"],
	]},
	"configuration": {"must": [
		[["td_attributes", "debug"], "is", false],
		[["quote", "body", "td_attributes"], "begins", "00"],
		[["td_attributes", "migratable"], "is", false],
		["secure-boot", "is", true],
		[["quote", "body", "xfam"], "in", "xfam"],
	]},
}

# A key that the settings enrol need not be a reference value too; one that only a certificate vouches for must be.
table("tpm") := {
	"executables": {"must": [
		["pcr11", "in", "tpm_pcr11"],
		["ak_public", "in", "trusted_aks", "ak_enrolled"],
		["boot_measured", "is", true],
	]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
	]},
}

# The image is one whose header the operator gave the verifier, or its tag is approved; the same for the host keys. The tag
# also vouches for what the header allows the guest.
table("se") := {
	"executables": {"must": [["tag", "in", "se_tag", "image_listed"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		["image_phkh", "in", "se_image_phkh", "host_keys_listed"],
		["attestation_phkh", "in", "se_attestation_phkh", "host_keys_listed"],
	]},
	"configuration": {"must": [["tag", "in", "se_tag", "image_listed"]]},
}

# Guest policy bits: no debugging; whether the state has to be encrypted (ES), and whether the guest may be sent to
# another platform (NOSEND, which CSV3 guests are commonly started without), is approved by reference value.
table("csv") := {
	"executables": {"must": [["measure", "in", "csv_measure"]]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		[["policy", "api_major"], "in", "csv_api_major"],
		[["policy", "api_minor"], "in", "csv_api_minor"],
	]},
	"configuration": {"must": [
		[["policy", "nodbg"], "is", 1],
		[["policy", "nosend"], "in", "csv_nosend"],
		[["policy", "es"], "in", "csv_es"],
	]},
}

# The verifier knows the platform's key; its firmware is approved by the setting cca_sw_components, one component at a
# time, or by reference value, the whole list at once. A setting that does not approve it is never made good for.
table("cca") := {
	"executables": {"must": [
		[["realm", "cca-realm-initial-measurement"], "in", "cca_realm_initial_measurement"],
		[["realm", "cca-realm-extensible-measurements"], "in", "cca_realm_extensible_measurements"],
		["realm_measurements_fit", "is", true],
	]},
	"hardware": {"must": [
		["binding", "is", "checked"],
		["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
		[["platform", "cca-platform-implementation-id"], "in", "cca_platform_implementation_id"],
		[["platform", "cca-platform-sw-components"], "in", "cca_platform_sw_components", "platform_firmware_approved"],
		["platform_firmware", "one of", ["approved", "not_checked"]],
	]},
	"configuration": {"must": [
		["platform_lifecycle", "is", "secured"],
		[["platform", "cca-platform-config"], "in", "cca_platform_config"],
	]},
}

# Two kinds of documents, with registers of their own. PCR12 of an instance holds kernel parameters from outside its
# image, which nothing else shows when Secure Boot is off.
table("nitro") := nitro_tables[input.nitro.document]

nitro_tables := {
	"enclave": {
		"executables": {"must": [
			["pcr0", "in", "nitro_pcr0"],
			["pcr1", "in", "nitro_pcr1"],
			["pcr2", "in", "nitro_pcr2"],
		]},
		"hardware": nitro_hardware,
		"configuration": {
			"must": [["debug", "is", false]],
			"better": [
				["pcr3", "in", "nitro_pcr3"],
				["pcr8", "in", "nitro_pcr8"],
			],
		},
	},
	"nitrotpm": {
		"executables": {"must": [
			["nitrotpm_pcr4", "in", "nitrotpm_pcr4"],
			["nitrotpm_pcr12", "in", "nitrotpm_pcr12"],
		]},
		"hardware": nitro_hardware,
		"configuration": {"must": [["nitrotpm_pcr7", "in", "nitrotpm_pcr7"]]},
	},
}

nitro_hardware := {"must": [
	["binding", "is", "checked"],
	["revocation", "one of", ["checked", "not_applicable"], "revocation_waived"],
]}

# What the token says of the workload, as upstream's default policy has it; beside it what somebody vouches for.
extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": object.union(identity.identifiers, {name: list |
		some name, list in identifiers
		count(list) > 0
	})},
}]

identifiers := {
	"container_images": [image | some container in containers; image := container.OCI.Annotations["io.kubernetes.cri.image-name"]],
	"container_uids": [uid | some container in containers; uid := container.OCI.Process.User.UID],
}

default containers := []

containers := input.init_data_claims.agent_policy_claims.containers
