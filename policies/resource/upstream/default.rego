# Upstream's default resource policy, "not sample" (KBS protocol 7.3), with one condition more: `cpu0` has to be present.
#
# It does not ask for the appraisal's status. Whatever is not the sample TEE passes, contraindicated or not.
package policy

default allow := false

allow if {
	data.plugin == "resource"
	is_object(input.submods.cpu0)
	not is_sample
}

is_sample if "sample" in object.keys(input.submods.cpu0["ear.veraison.annotated-evidence"])
