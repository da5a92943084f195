# Appraisal Policy for Evidence, profile images: as the default, and every container image is on a list.
#
# `executables` asks beside the default's rows that each image of the agent's policy in the init data, and each that the
# runtime log says was pulled, is in the reference value `allowed_images`; at least one there must be. A pause container
# without a name is "(sandbox)". Nothing was measured at run time but what the attestation agent logged, so that no pull is
# hidden. `instance-identity` 2: the init data are an approved document, or the agent's rules in them are approved
# (kbs.identity), so that they enforce what the data say.
package policy

import data.kbs.cpu
import data.kbs.profile
import data.kbs.workload

table := object.union(
	profile.standard,
	{
		"executables": {"also": [
			["init_data_claims.agent_policy_claims.containers[image]", "all in", "allowed_images"],
			["event_log.registers[run time]", "one of", ["complete", "unused"]],
		]},
		"instance-identity": {"also": [profile.pinned]},
	},
)

facts := object.union(
	profile.init_data_facts,
	{
		"init_data_claims.agent_policy_claims.containers[image]": workload.images(input),
		"event_log.registers[run time]": workload.runtime_log(input),
	},
)

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, facts)
