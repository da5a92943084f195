# Who a guest is, read from the agent's policy in its init data, where somebody vouches for the rules that enforce it.
#
# The claims hold the data of the agent's policy (`policy_data`), not its rules, and whoever writes the document writes
# both: rules that ignore the data, or data in a comment, would make any guest anybody. So they count where an operator
# approved the whole document by its digest (`init_data_digests`), or the rules alone by theirs
# (`agent_policy_rules_digests`), or trusts whoever writes such documents, by name of a reference value that says what it
# is. In each case the hardware has to have measured init data.
#
# Policies of your own may `import data.kbs.identity`.
package kbs.identity

import data.kbs.checks
import data.kbs.workload

default document_approved := false

document_approved if {
	input.init_data != null
	checks.agrees("in", input.init_data, data.policy.query_reference_value("init_data_digests"))
}

# The text of the rules is approved, whatever its data are. It says nothing of the rest of the document: labels, and the
# settings of the guest's components.
default rules_approved := false

rules_approved if {
	input.init_data != null
	is_string(input.init_data_claims.agent_policy_rules_sha256)
	checks.agrees(
		"in", input.init_data_claims.agent_policy_rules_sha256,
		data.policy.query_reference_value("agent_policy_rules_digests"),
	)
}

default author_trusted := false

author_trusted if data.policy.query_reference_value("insecure_trust_init_data_author") == true

# Whether what the data of the agent's policy say is enforced, as far as an operator vouches for it.
default enforced := false

enforced if rules_approved

enforced if author_trusted

enforced if document_approved

# What is added to the validated identifiers of upstream's policy; nothing where nobody vouches for it. Annotations that
# the rules match as patterns name nobody, and are left out.
identifiers := {name: list | some name, list in found; count(list) > 0} if {
	input.init_data != null
	is_array(input.init_data_claims.agent_policy_claims.containers)
	enforced
} else := {}

found := {
	"annotations": {name: values(name) | some name in annotation_names; count(values(name)) > 0},
	"container_image_digests": sort({digest |
		some image in workload.containers_images(input)
		digest := image_digest(image)
	}),
	"namespaces": values("io.kubernetes.cri.sandbox-namespace"),
	"service_accounts": [account |
		document_approved
		account := input.init_data_claims["service-account"]
		is_string(account)
	],
}

annotation_names := {name | some container in workload.containers(input); some name, _ in container.OCI.Annotations}

# What the containers' annotations of one name say, each once.
values(name) := sort({value |
	some container in workload.containers(input)
	value := workload.annotation(container, name)
	is_exact(value)
})

is_exact(value) if {
	is_string(value)
	not startswith(value, "^")
	not contains(value, "$(")
}

# Of an image that is pinned by digest; a tag says nothing about what it names tomorrow.
image_digest(image) := digest if {
	[_, digest] := split(image, "@")
	regex.match(`^sha256:[0-9a-f]{64}$`, digest)
}
