# What every evidence policy finds in its own package besides its own rules.
#
# Upstream's engine offers query_reference_value as an extension function (attestation-service 2.2). Reference values
# live at a private path that only this file reads; `data.reference` stays empty, as it does upstream.
package policy

# The reference value of that name, or null when there is none. Undefined unless the name is a string.
query_reference_value(id) := value if {
	is_string(id)
	value := data.kbs.reference[id]
} else := null if {
	is_string(id)
}
