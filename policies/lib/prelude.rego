# What every evidence policy finds in its own package besides its own rules.
#
# Upstream's engine offers query_reference_value as an extension function (attestation-service 2.2). Reference values
# live at private paths that only this file reads; `data.reference` stays empty, as it does upstream.
package policy

# The reference value of that name, or null when there is none. Undefined unless the name is a string.
query_reference_value(id) := value if {
	is_string(id)
	value := data.kbs.reference[id]
} else := null if {
	is_string(id)
}

# The compound sets that state a value of that name: an array of objects, name → value, empty when there is none. What
# one set states belongs together, such as the kernel and the initrd of one release. Undefined unless the name is a
# string.
query_reference_sets(name) := sets if {
	is_string(name)
	sets := data.kbs.reference_sets[name]
} else := [] if {
	is_string(name)
}
