# Appraisal Policy for Attestation Results: a resource is for the Pods of one service account, beside what the evidence says.
#
# CLUSTER/NAMESPACE.SERVICEACCOUNT/key is for guests that pass the default and show a token of a Pod under that service
# account, which its cluster's API server was asked about. The cluster's name is in the path because every cluster names
# its namespaces itself. This narrows among the Pods of one cluster; whoever controls that cluster can be any of them.
package policy

import data.kbs.affirming
import data.kbs.findings as found

# Nothing where no token was shown; the broker refuses one that does not verify before any policy is asked.
default pod := {}

pod := data.identity.kubernetes if is_object(data.identity.kubernetes)

default account := null

account := concat(".", [pod.namespace, pod.serviceaccount])

rows := [
	found.equals("allow", "data.identity.kubernetes.cluster", object.get(pod, "cluster", null), affirming.segment(0)),
	found.equals("allow", "data.identity.kubernetes", account, affirming.segment(1)),
	found.equals("allow", "data.identity.kubernetes.checked", object.get(pod, "checked", null), "review"),
]

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
