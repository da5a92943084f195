# Appraisal Policy for Attestation Results: a resource is for one pod.
#
# NAMESPACE/POD/key is for the guest whose containers all belong to the pod of that name in that namespace. Beside that it
# asks for what the default asks for, and that the evidence policy recognized the workload (`instance-identity` 2: the
# profiles namespace, images and init-data).
package policy

import data.kbs.affirming
import data.kbs.findings as found
import data.kbs.workload

rows := [
	affirming.recognized,
	found.equals("allow", "data.resource-path[0]", affirming.segment(0), workload.only(workload.namespaces(affirming.cpu))),
	found.equals("allow", "data.resource-path[1]", affirming.segment(1), workload.only(workload.pods(affirming.cpu))),
]

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
