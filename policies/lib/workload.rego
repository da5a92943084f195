# What a guest runs, as its measured init data and its runtime log say. `document`: one TEE's claims as a policy for
# evidence has them in `input`, and a token in `submods.cpu0["ear.veraison.annotated-evidence"]`.
#
# Init data hold the data of the agent's policy, not its rules: what is read here is worth as much as the approval of the
# whole document by its digest (kbs.profile, `pinned`). A member that is missing is null and equals nothing.
#
# Policies of your own may `import data.kbs.workload`.
package kbs.workload

containers(document) := list if {
	list := object.get(document, ["init_data_claims", "agent_policy_claims", "containers"], [])
	is_array(list)
} else := []

annotation(container, name) := object.get(container, ["OCI", "Annotations", name], null) if {
	is_object(container)
} else := null

is_sandbox(container) if annotation(container, "io.kubernetes.cri.container-type") == "sandbox"

# The image of a container; "(sandbox)" for a pod's pause container without a name of its own.
image(container) := "(sandbox)" if {
	is_sandbox(container)
	annotation(container, "io.kubernetes.cri.image-name") == null
} else := annotation(container, "io.kubernetes.cri.image-name")

# One entry for each container.
containers_images(document) := [image(container) | some container in containers(document)]

# One entry for each container, and one for each image that the runtime log says was pulled.
images(document) := array.concat(containers_images(document), pulled(document))

namespaces(document) := [annotation(container, "io.kubernetes.cri.sandbox-namespace") |
	some container in containers(document)
]

pods(document) := [annotation(container, "io.kubernetes.cri.sandbox-name") | some container in containers(document)]

# `name@digest` of every image that the attestation agent logged as pulled into the guest (guest-components 5.6), whatever
# the domain: any container may log what it likes, and none can take an entry away. The digest is that of the platform's
# manifest, also where the name was pinned to an index. Null stands for an entry that does not say what was pulled, and
# for events that a token was too small for.
pulled(document) := array.concat(
	[pulled_image(event.content) | some event in agent_events(document); event.operation == "PullImage"],
	[null | some path, _ in object.get(document, "omitted", {}); endswith(path, ".runtime_events")],
)

pulled_image(content) := concat("@", [split(content.image, "@")[0], content.digest]) if {
	is_string(content.image)
	startswith(content.digest, "sha256:")
} else := null

# What the agent logged. Tokens of other issuers have the events in the log of the firmware alone.
agent_events(document) := events if {
	some tee in logging
	events := document[tee].runtime_events
	is_array(events)
} else := [event.details.data |
	some tee in logging
	some event in document[tee].uefi_event_logs
	event.details.unicode_name == "AAEL"
]

logging := {"az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "sgx", "snp", "tdx", "tpm"}

# Whether all that was measured at run time is what the agent logged: whoever carries the log may leave it out, or give a
# measured event another label. "complete": each event of the agent's register is one of the agent's. "unused": nothing
# was measured into it, or the TEE has none. Null: something was, and nobody knows what.
runtime_log(document) := "complete" if {
	some tee, index in {"tdx": 4, "csv": 4, "tpm": 17, "az-snp-vtpm": 17, "az-tdx-vtpm": 17}
	some register in document[tee].event_log.registers
	register.index == index
	register.events == register.runtime_events
	is_number(register.events)
} else := null if {
	some tee in ["tdx", "csv", "tpm", "az-snp-vtpm", "az-tdx-vtpm"]
	is_object(document[tee].event_log)
} else := "unused" if {
	count(object.keys(document) & logging) > 0
	every tee in object.keys(document) & {"az-snp-vtpm", "az-tdx-vtpm", "csv", "tdx", "tpm"} {
		is_unused(agent_register(document, tee))
	}
} else := "unused" if {
	count(object.keys(document) & {"nitro", "sample", "se"}) > 0
	count(object.keys(document) & logging) == 0
} else := null

agent_register(document, "tdx") := document.tdx.quote.body.rtmr_3

agent_register(document, "csv") := document.csv.rtmr4

# Reports before version 3 have no such registers.
agent_register(document, "csv") := "00" if {
	is_object(document.csv)
	not "rtmr4" in object.keys(document.csv)
	not "rtmr_version" in object.keys(document.csv)
}

agent_register(document, "tpm") := document.tpm.pcr17

agent_register(document, tee) := document[tee].tpm.pcr17 if tee in {"az-snp-vtpm", "az-tdx-vtpm"}

# As at the start: zero, or ones in a PCR that only a dynamic launch resets.
is_unused(register) if regex.match(`^(0+|[fF]+)$`, register)

# The one value of a list whose entries all agree; null for none, and for several.
only(list) := value if {
	count({entry | some entry in list}) == 1
	value := list[0]
} else := null
