# Appraisal Policy for Attestation Results: a resource is for one init-data document.
#
# The second part of the path is the digest that the hardware measured: default/DIGEST/key is for the guests that were
# started with that very document, which holds their agent's policy and settings. Beside that it asks for what the
# default asks for.
package policy

import data.kbs.affirming
import data.kbs.findings as found

rows := [found.equals("allow", "data.resource-path[1]", affirming.segment(1), object.get(affirming.cpu, "init_data", null))]

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
