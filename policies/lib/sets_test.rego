package kbs.sets_test

import data.kbs.sets

a := {"release": "A", "kernel": ["a1"], "initrd": ["a2"], "minimum": 3}

b := {"release": "B", "kernel": ["b1"], "initrd": ["b2"], "minimum": 3}

by_name := {name: [a, b] | some name in ["release", "kernel", "initrd", "minimum"]}

rows := [["kernel", "in", "kernel"], [["boot", "initrd"], "in", "initrd"], ["svn", "at least", "minimum"]]

guest(kernel, initrd) := {"kernel": kernel, "boot": {"initrd": initrd}, "svn": 4}

test_looked_up if {
	some_rows := array.concat(rows, [["kernel", "is", "a1"], ["svn", "in", "x", "waived"], ["svn", "in", "y", "unwaived"]])
	sets.looked_up({"waived": true, "unwaived": false, "svn": 1}, some_rows) == array.concat(rows, [["svn", "in", "y", "unwaived"]])
	sets.looked_up({}, []) == []
}

test_one_release if {
	sets.together(guest("a1", "a2"), rows) with data.kbs.reference_sets as by_name
	sets.together(guest("b1", "b2"), rows) with data.kbs.reference_sets as by_name
	sets.covering(guest("b1", "b2"), rows) == [b] with data.kbs.reference_sets as by_name
}

test_mixed_releases if {
	every claims in [guest("a1", "b2"), guest("b1", "a2"), guest("a1", "c2"), guest(null, "a2"), {}, {"kernel": "a1"}] {
		not sets.together(claims, rows) with data.kbs.reference_sets as by_name
	}
}

test_not_enough if {
	every claims in [null, "x", [], 1] {
		not sets.together(claims, rows) with data.kbs.reference_sets as by_name
	}
	not sets.together(guest("a1", "a2"), []) with data.kbs.reference_sets as by_name
	not sets.together(guest("a1", "a2"), rows)
	every known in [{}, {"kernel": []}, {"kernel": [{}]}, {"kernel": [null]}, {"kernel": [{"kernel": ["a1"]}]}, {"initrd": [a]}] {
		not sets.together(guest("a1", "a2"), rows) with data.kbs.reference_sets as known
	}
	not sets.together(guest("a1", "a2"), rows) with data.kbs.reference as a
}

test_stated if {
	partly := {"initrd": ["c2"]}
	known := object.union(by_name, {"initrd": [partly, a, b]})
	sets.stated(rows) == [a, b, partly] with data.kbs.reference_sets as known
	sets.stated(rows) == []
}

test_title if {
	sets.title([a], 0) == "A"
	sets.title([a, {}], 1) == "set 2"
	sets.title([{"release": 7}], 0) == "set 1"
}

test_finding_of_one_release if {
	found := sets.findings("executables", "tee", guest("a1", "a2"), rows) with data.kbs.reference_sets as by_name
	values := {"kernel": ["a1"], "initrd": ["a2"], "minimum": 3}
	found == [{"rule": "executables", "claim": "tee[one set]", "reference": null, "seen": values, "expected": values, "ok": true}]
}

test_findings_of_mixed_releases if {
	found := sets.findings("executables", "tee", guest("b1", "a2"), rows) with data.kbs.reference_sets as by_name
	found == [
		{
			"rule": "executables", "claim": "tee[one set]", "reference": null,
			"seen": {"kernel": ["B"], "initrd": ["A"], "minimum": ["A", "B"]},
			"expected": {"kernel": ["A"], "initrd": ["A"], "minimum": ["A"]}, "ok": false,
		},
		{
			"rule": "executables", "claim": "tee.kernel[kernel of A]", "reference": null,
			"seen": "b1", "expected": ["a1"], "ok": false,
		},
	]
}

test_the_closest if {
	found := sets.findings("executables", "tee", guest("c1", "b2"), rows) with data.kbs.reference_sets as by_name
	found[0].expected == {"kernel": ["B"], "initrd": ["B"], "minimum": ["B"]}
	found[1].claim == "tee.kernel[kernel of B]"
	absent := sets.findings("executables", "tee", {"svn": 4, "boot": {"initrd": "b2"}}, rows) with data.kbs.reference_sets as by_name
	absent[1].seen == null
}

test_no_sets if {
	expected := [{"rule": "executables", "claim": "tee[one set]", "reference": null, "seen": null, "expected": null, "ok": false}]
	sets.findings("executables", "tee", guest("a1", "a2"), rows) == expected
	sets.findings("executables", "tee", guest("a1", "a2"), []) == expected with data.kbs.reference_sets as by_name
}
