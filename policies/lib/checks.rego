# Tables of checks: a comparison is written once and serves both the verdict and its explanation.
#
# A check is an array [claim, comparison, wanted]:
#   claim       a member of the claims document, or an array of member names leading to it
#   comparison  "is"        the claim equals the constant `wanted`
#               "one of"    the claim is a member of the constant list `wanted`
#               "begins"    the claim is text that begins with the constant `wanted`
#               "in"        the claim is a member of the list that reference value `wanted` holds
#               "equals"    the claim equals the single value that reference value `wanted` holds
#               "at least"  the claim is a number no less than the number that reference value `wanted` holds
#               "at most"   the claim is a number no greater than the number that reference value `wanted` holds
#               "all in"    the claim is a list, not empty, of members of the list that reference value `wanted` holds
#               "contains"  the claim is a list with the single value that reference value `wanted` holds in it
# A fourth element names a claim that waives the check when it is `true` and the checked claim is there at all.
#
# An absent or null claim, an absent reference value, one of another type, and a comparison that nobody defined: the
# check does not hold. In particular no minimum is ever met by null, which Rego orders below every number.
#
# A group is {"must": [checks], "better": [checks]}; `better` may be left out. A table is an object from trust claim
# name to group. Policies of your own may `import data.kbs.checks`.
package kbs.checks

by_reference := {"in", "equals", "at least", "at most", "all in", "contains"}

holds(claims, check) if {
	seen := object.get(claims, check[0], null)
	seen != null
	compare(check[1], seen, check[2])
} else if waived(claims, check)

waived(claims, check) if {
	object.get(claims, check[3], false) == true
	object.get(claims, check[0], null) != null
}

compare("is", seen, wanted) if seen == wanted

compare("one of", seen, wanted) if seen in wanted

compare("begins", seen, wanted) if startswith(seen, wanted)

compare(comparison, seen, id) if {
	comparison in by_reference
	agrees(comparison, seen, data.policy.query_reference_value(id))
}

# The comparisons by reference, with the value itself; it may come from a compound set (sets.rego). Null never agrees.
agrees("in", seen, list) if {
	is_array(list)
	seen in list
}

agrees("equals", seen, value) if {
	value != null
	seen == value
}

agrees("at least", seen, minimum) if {
	is_number(minimum)
	is_number(seen)
	seen >= minimum
}

agrees("at most", seen, maximum) if {
	is_number(maximum)
	is_number(seen)
	seen <= maximum
}

agrees("all in", seen, list) if {
	is_array(list)
	is_array(seen)
	count(seen) > 0
	every item in seen {
		item != null
		item in list
	}
}

agrees("contains", seen, value) if {
	is_array(seen)
	value != null
	value in seen
}

# True when there is at least one check and all of them hold.
all_hold(claims, checks) if {
	count(checks) > 0
	every check in checks {
		holds(claims, check)
	}
}

# The value of one trust claim on a scale [all hold, only `must` holds, neither]. Without `better` the first is due to
# `must` alone; without `must` it is always the last.
grade(claims, group, scale) := scale[0] if {
	all_hold(claims, group.must)
	better(claims, group)
} else := scale[1] if {
	all_hold(claims, group.must)
} else := scale[2]

better(claims, group) if {
	not group.better
} else if {
	all_hold(claims, group.better)
}

# One finding per check of the table. `prefix` is the path of the claims document in the input.
findings(prefix, claims, table) := [finding |
	some rule, group in table
	some part in ["must", "better"]
	some check in group[part]
	finding := describe(rule, prefix, claims, check)
]

describe(rule, prefix, claims, check) := object.union(
	data.kbs.findings.finding(
		rule, concat(".", array.concat([prefix], path(check[0]))),
		reference(check), object.get(claims, check[0], null), expected(check), verdict(claims, check),
	),
	comparison(check),
)

# Which form the reference value must have, for who mends it.
comparison(check) := {"comparison": check[1]} if {
	check[1] in by_reference
} else := {}

path(claim) := claim if {
	is_array(claim)
} else := [claim]

reference(check) := check[2] if {
	check[1] in by_reference
} else := null

expected(check) := data.policy.query_reference_value(check[2]) if {
	check[1] in by_reference
} else := check[2]

verdict(claims, check) if {
	holds(claims, check)
} else := false
