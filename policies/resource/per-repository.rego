# Appraisal Policy for Attestation Results: a repository belongs to the namespace of its name.
#
# A guest gets what lies in the repository that is named as the Kubernetes namespace of all of its containers. Beside
# that it asks for what the default asks for, and that the evidence policy recognized the workload
# (`instance-identity` 2: the profiles namespace, images and init-data).
package policy

import data.kbs.affirming
import data.kbs.findings as found
import data.kbs.workload

rows := [
	affirming.recognized,
	found.equals("allow", "data.resource-path[0]", affirming.segment(0), workload.only(workload.namespaces(affirming.cpu))),
]

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
