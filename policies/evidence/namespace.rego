# Appraisal Policy for Evidence, profile namespace: as the default, and the guest belongs to an approved namespace.
#
# `instance-identity` 2: all containers of the agent's policy in the init data are of namespaces (tenants) in the
# reference value `allowed_namespaces`, and the init data are an approved document, or the agent's rules in them are
# approved (kbs.identity), so that they enforce what the data say.
package policy

import data.kbs.cpu
import data.kbs.profile
import data.kbs.workload

table := object.union(
	profile.standard,
	{"instance-identity": {"also": [
		profile.pinned,
		["init_data_claims.agent_policy_claims.containers[namespace]", "all in", "allowed_namespaces"],
	]}},
)

facts := object.union(
	profile.init_data_facts,
	{"init_data_claims.agent_policy_claims.containers[namespace]": workload.namespaces(input)},
)

trust_claims := profile.vector(table, facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, facts)
