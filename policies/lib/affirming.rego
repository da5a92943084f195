# The condition of the default policy for resources: every submodule of the token is affirming, and the CPU is real
# hardware. The software TEEs, whose evidence anyone can make, open nothing, wherever in the token they stand.
#
# Policies of your own may `import data.kbs.affirming`.
package kbs.affirming

import data.kbs.findings as found

hardware := {"az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "nitro", "se", "sgx", "snp", "tdx", "tpm"}

software := {"sample", "sampledevice"}

# A request for a resource, by a token of that kind.
resource if {
	data.plugin == "resource"
	token
}

# A token of that kind, whatever it asks for.
token if {
	is_object(input.submods)
	count(input.submods) > 0
	every name, appraisal in input.submods {
		appraisal["ear.status"] == "affirming"
		count(object.keys(evidence(name)) & software) == 0
	}
	count(object.keys(evidence("cpu0")) & hardware) == 1
}

# What the verifier said of one submodule. Absent, as some issuers have it for devices, it is empty; undefined when it
# is no object, so that nothing can be said of it.
evidence(name) := document if {
	document := object.get(input.submods[name], "ear.veraison.annotated-evidence", {})
	is_object(document)
}

findings := array.concat(
	[
		found.equals("allow", "data.plugin", plugin, "resource"),
		found.one_of("allow", "submods.cpu0.ear.veraison.annotated-evidence", cpu_tee, sort(hardware)),
	],
	[finding | some name, _ in input.submods; some finding in submodule(concat(".", ["submods", name]), input.submods[name])],
)

submodule(path, appraisal) := array.concat(
	[found.equals("allow", concat(".", [path, "ear.status"]), member(appraisal, "ear.status", null), "affirming")],
	[found.absent("allow", concat(".", [path, "ear.veraison.annotated-evidence"]), document, tee) |
		document := member(appraisal, "ear.veraison.annotated-evidence", {})
		some tee in software
	],
)

member(document, name, otherwise) := object.get(document, name, otherwise) if {
	is_object(document)
} else := otherwise

# The one TEE that the CPU's evidence names, null for none or several.
default cpu_tee := null

cpu_tee := tee if {
	named := object.keys(evidence("cpu0")) & hardware
	count(named) == 1
	some tee in named
}

default plugin := null

plugin := data.plugin

# What profiles by workload look at beside.
default cpu := {}

cpu := evidence("cpu0")

# A part of the path asked for, null where there is none.
segment(number) := data["resource-path"][number] if {
	is_array(data["resource-path"])
} else := null

# That the evidence policy approved what the workload is, rather than only where it runs: the trust claim
# `instance-identity`, which the default evidence policy leaves at 0.
recognized := found.equals(
	"allow", "submods.cpu0.ear.trustworthiness-vector.instance-identity",
	object.get(input, ["submods", "cpu0", "ear.trustworthiness-vector", "instance-identity"], null), 2,
)
