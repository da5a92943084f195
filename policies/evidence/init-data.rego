# Appraisal Policy for Evidence, profile init-data: as the default, and the init data are approved documents.
#
# `instance-identity` 2: the digest of the init data that the hardware measured is in the reference value
# `init_data_digests`, written as the claim `init_data` is.
package policy

import data.kbs.cpu
import data.kbs.profile

table := object.union(
	profile.standard,
	{"instance-identity": {"also": [["init_data", "in", "init_data_digests"]]}},
)

trust_claims := profile.vector(table, profile.init_data_facts)

extensions := cpu.extensions

default findings := []

findings := profile.findings(table, profile.init_data_facts)
