# Appraisal Policy for Evidence, profile images: as the default, and every container image is on a list.
#
# `executables` asks beside the default's rows that each image of the agent's policy in the init data, and each that the
# runtime log says was pulled, is in the reference value `allowed_images`; at least one there must be. A pause container
# without a name is "(sandbox)". `instance-identity` 2: the init data are an approved document (see profile init-data), so
# that the agent's rules enforce what its data say.
package policy

import data.kbs.cpu
import data.kbs.profile
import data.kbs.workload

table := object.union(
	profile.standard,
	{
		"executables": {"also": [["init_data_claims.agent_policy_claims.containers[image]", "all in", "allowed_images"]]},
		"instance-identity": {"also": [profile.pinned]},
	},
)

facts := object.union(
	profile.init_data_facts,
	{"init_data_claims.agent_policy_claims.containers[image]": workload.images(input)},
)

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, facts)
