# Compound sets: values that only match together, such as the measurements of one release. Each value by itself may be
# approved and the combination not: a kernel of one release with the initrd of another.
#
# `rows` are checks by reference (kbs.checks); `claims` the document they look at. A set covers a row when the claim
# agrees with the value that this set states under the row's name; one that does not state it covers nothing.
#
# Policies of your own may `import data.kbs.sets`.
package kbs.sets

import data.kbs.checks
import data.kbs.findings as found

# Those of the rows that reference values decide: not constants, nor what a claim waives.
looked_up(claims, rows) := [row |
	some row in rows
	row[1] in checks.by_reference
	not checks.waived(claims, row)
]

covers(set, claims, row) if {
	seen := object.get(claims, row[0], null)
	seen != null
	checks.agrees(row[1], seen, object.get(set, row[2], null))
}

# The sets that cover all of the rows. Each of them states the first one's value. No rows, no set.
covering(claims, rows) := [set |
	some set in data.policy.query_reference_sets(rows[0][2])
	every row in rows {
		covers(set, claims, row)
	}
]

# One set covers all of the rows.
together(claims, rows) if count(covering(claims, rows)) > 0

# All sets that state a value of any of the rows, each once.
stated(rows) := [set |
	some number, row in rows
	some set in data.policy.query_reference_sets(row[2])
	every earlier in array.slice(rows, 0, number) {
		not earlier[2] in object.keys(set)
	}
]

# A set that states a text under the name `release` is called by it, others by their number.
title(sets, number) := sets[number].release if {
	is_string(sets[number].release)
} else := concat(" ", ["set", format_int(number + 1, 10)])

# Why no set covers the rows: in which sets each value is found, and what the closest set says instead. `path`: of the
# claims document in the input.
findings(rule, path, claims, rows) := [found.finding(rule, bracketed(path, "one set"), null, values, values, true)] if {
	some set in covering(claims, rows)
	values := object.filter(set, names(rows))
} else := array.concat([verdict], differences(rule, path, claims, rows, sets, nearest)) if {
	sets := stated(rows)
	nearest := closest(sets, claims, rows)
	verdict := found.finding(
		rule, bracketed(path, "one set"), null,
		{row[2]: titles | some row in rows; titles := covering_titles(sets, claims, row)},
		{row[2]: [title(sets, nearest)] | some row in rows},
		false,
	)
} else := [found.finding(rule, bracketed(path, "one set"), null, null, null, false)]

# No reference value is named: adding to it by itself would not help.
differences(rule, path, claims, rows, sets, nearest) := [found.finding(
	rule, bracketed(concat(".", array.concat([path], checks.path(row[0]))), concat(" of ", [row[2], title(sets, nearest)])),
	null, object.get(claims, row[0], null), object.get(sets[nearest], row[2], null), false,
) |
	some row in rows
	not covers(sets[nearest], claims, row)
]

covering_titles(sets, claims, row) := [title(sets, number) | some number, set in sets; covers(set, claims, row)]

bracketed(path, what) := concat("", [path, "[", what, "]"])

names(rows) := {row[2] | some row in rows}

# The number of the set that covers most rows, the first of several; undefined without sets.
closest(sets, claims, rows) := [number |
	some number, covered in scores
	covered == max(scores)
][0] if {
	scores := [covered | some set in sets; covered := count([row | some row in rows; covers(set, claims, row)])]
}
