# Appraisal Policy for Attestation Results: the default.
#
# Releases resources when every submodule of the token is affirming and the CPU is real hardware: the condition itself
# stands in `data.kbs.affirming` (lib/affirming.rego).
package policy

import data.kbs.affirming

default allow := false

allow if affirming.resource

findings := affirming.findings
