# Appraisal Policy for Attestation Results: a resource is for one container image.
#
# default/DIGEST/key, DIGEST being the 64 hex digits of the image's SHA-256, is for guests that run that image and no
# other, but for the pod's pause container: a second image beside it could read what it reads. Beside that it asks for
# what the default asks for, and that the evidence policy recognized the workload (`instance-identity` 2: the profiles
# namespace, images and init-data).
package policy

import data.kbs.affirming
import data.kbs.findings as found
import data.kbs.workload

digests := [digest(image) | some image in workload.images(affirming.cpu); image != "(sandbox)"]

digest(image) := hex if {
	[_, hex] := split(image, "@sha256:")
	count(hex) == 64
} else := null

rows := [
	affirming.recognized,
	found.equals("allow", "data.resource-path[1]", affirming.segment(1), workload.only(digests)),
]

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
