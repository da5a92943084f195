# Appraisal Policy for Attestation Results: the default, and every guest whose evidence is authentic may ask what was made
# of it (plugin `whoami`).
#
# The answer holds nothing that is not in the guest's own token. Whoever is denied a secret is told why it may be; what
# was expected only operators are told.
package policy

import data.kbs.affirming
import data.kbs.findings as found

default allow := false

allow if affirming.resource

allow if data.plugin == "whoami"

findings := [found.equals("allow", "data.plugin", data.plugin, "whoami")] if {
	data.plugin == "whoami"
} else := affirming.findings
