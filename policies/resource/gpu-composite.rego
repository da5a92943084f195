# Appraisal Policy for Attestation Results: confidential GPUs beside the confidential CPU.
#
# Releases resources when the default would, and the token has at least one submodule of a GPU, each with NVIDIA
# evidence. An evidence policy sees one submodule at a time, so only here can the CPU and its GPUs be asked for together.
package policy

import data.kbs.affirming
import data.kbs.findings as found

gpus := {name | some name, _ in input.submods; startswith(name, "gpu")}

rows := array.concat(
	[found.equals("allow", "submods[gpu…]", count(gpus) > 0, true)],
	[found.equals("allow", concat(".", ["submods", name, "ear.veraison.annotated-evidence[nvidia]"]), has_nvidia(name), true) |
		some name in sort(gpus)
	],
)

has_nvidia(name) if {
	is_object(affirming.evidence(name).nvidia)
} else := false

default allow := false

allow if {
	affirming.resource
	every row in rows {
		row.ok
	}
}

findings := array.concat(affirming.findings, rows)
