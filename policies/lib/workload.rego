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

# One entry for each container, and one for each image that the runtime log says was pulled.
images(document) := array.concat(
	[image(container) | some container in containers(document)],
	pulled(document),
)

namespaces(document) := [annotation(container, "io.kubernetes.cri.sandbox-namespace") |
	some container in containers(document)
]

pods(document) := [annotation(container, "io.kubernetes.cri.sandbox-name") | some container in containers(document)]

# `name@digest` of every image that the attestation agent logged as pulled into the guest (guest-components 5.6).
pulled(document) := [pulled_image(event.details.data.content) |
	some tee in ["tdx", "tpm", "az-snp-vtpm", "az-tdx-vtpm", "csv", "cca", "sgx", "snp"]
	some event in document[tee].uefi_event_logs
	event.details.unicode_name == "AAEL"
	event.details.data.operation == "PullImage"
]

pulled_image(content) := content.image if {
	contains(content.image, "@")
	endswith(content.image, concat("", ["@", content.digest]))
} else := concat("@", [content.image, content.digest]) if {
	not contains(content.image, "@")
} else := null

# The one value of a list whose entries all agree; null for none, and for several.
only(list) := value if {
	count({entry | some entry in list}) == 1
	value := list[0]
} else := null
