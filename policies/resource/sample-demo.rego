# FOR DEMONSTRATIONS ONLY: releases resources to the software TEE `sample`, whose evidence anyone can make.
#
# Lets people play the whole exchange on a laptop. Real hardware passes too; what guards a real secret is the default
# policy, affirming.rego.
package policy

import data.kbs.findings as found

hardware := {"az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "se", "sgx", "snp", "tdx", "tpm"}

admitted := hardware | {"sample"}

default allow := false

allow if {
	data.plugin == "resource"
	input.submods.cpu0["ear.status"] == "affirming"
	cpu_tee in admitted
}

# The one TEE that the CPU's evidence names, null for none or several.
default cpu_tee := null

cpu_tee := tee if {
	named := object.keys(input.submods.cpu0["ear.veraison.annotated-evidence"]) & admitted
	count(named) == 1
	some tee in named
}

findings := [
	found.equals("allow", "data.plugin", plugin, "resource"),
	found.equals("allow", "submods.cpu0.ear.status", status, "affirming"),
	found.one_of("allow", "submods.cpu0.ear.veraison.annotated-evidence", cpu_tee, sort(admitted)),
]

default status := null

status := input.submods.cpu0["ear.status"]

default plugin := null

plugin := data.plugin
