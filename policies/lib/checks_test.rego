package kbs.checks_test

import data.kbs.checks

references := {"list": [1, "a", null], "number": 4, "text": "x", "flag": false, "nothing": null}

claims := {
	"one": 1,
	"four": 4,
	"text": "x",
	"flag": false,
	"nothing": null,
	"list": ["x", null],
	"deep": {"er": "a"},
	"waived": true,
	"unwaived": false,
	"words": "waived",
}

good := [
	["one", "is", 1],
	["flag", "is", false],
	[["deep", "er"], "is", "a"],
	["text", "one of", ["w", "x"]],
	["text", "begins", "x"],
	["one", "in", "list"],
	[["deep", "er"], "in", "list"],
	["four", "equals", "number"],
	["flag", "equals", "flag"],
	["four", "at least", "number"],
	["list", "contains", "text"],
	["one", "is", 2, "waived"],
]

bad := [
	["one", "is", true],
	["one", "is", "1"],
	["flag", "is", null],
	["absent", "is", null],
	["nothing", "is", null],
	[["deep", "er", "still"], "is", "a"],
	[["one", "deep"], "is", "a"],
	["text", "one of", "x"],
	["text", "one of", []],
	["text", "begins", "y"],
	["one", "begins", "1"],
	["nothing", "in", "list"],
	["absent", "in", "list"],
	["text", "in", "text"],
	["one", "in", "unregistered"],
	["one", "in", "nothing"],
	["nothing", "equals", "nothing"],
	["absent", "equals", "unregistered"],
	["one", "equals", "unregistered"],
	["one", "equals", "list"],
	["one", "at least", "number"],
	["one", "at least", "unregistered"],
	["one", "at least", "nothing"],
	["one", "at least", "flag"],
	["text", "at least", "number"],
	["text", "contains", "text"],
	["list", "contains", "number"],
	["list", "contains", "nothing"],
	["list", "contains", "unregistered"],
	["one", "never heard of", 1],
	["one"],
	[],
	"one",
	["one", "is", 2, "unwaived"],
	["one", "is", 2, "words"],
	["one", "is", 2, "absent"],
	["absent", "is", 2, "waived"],
	["nothing", "is", 2, "waived"],
]

test_good if {
	every check in good {
		checks.holds(claims, check) with data.kbs.reference as references
		checks.verdict(claims, check) == true with data.kbs.reference as references
	}
}

test_bad if {
	every check in bad {
		not checks.holds(claims, check) with data.kbs.reference as references
		checks.verdict(claims, check) == false with data.kbs.reference as references
	}
}

test_claims_that_are_no_object if {
	every document in [null, [], "x", 1, true] {
		not checks.holds(document, ["one", "is", 1])
	}
}

test_all_hold if {
	checks.all_hold(claims, [["one", "is", 1], ["flag", "is", false]])
	not checks.all_hold(claims, [["one", "is", 1], ["flag", "is", true]])
	every checks_of_no_use in [[], {}, null, "text", 7] {
		not checks.all_hold(claims, checks_of_no_use)
	}
}

yes := ["one", "is", 1]

no := ["one", "is", 2]

test_grade if {
	scale := [3, 4, 33]
	checks.grade(claims, {"must": [yes]}, scale) == 3
	checks.grade(claims, {"must": [yes], "better": [yes]}, scale) == 3
	checks.grade(claims, {"must": [yes], "better": [yes, no]}, scale) == 4
	checks.grade(claims, {"must": [yes], "better": []}, scale) == 4
	checks.grade(claims, {"must": [no], "better": [yes]}, scale) == 33
	checks.grade(claims, {"must": []}, scale) == 33
	checks.grade(claims, {}, scale) == 33
	checks.grade(claims, {"better": [yes]}, scale) == 33
	checks.grade(null, {"must": [yes]}, scale) == 33
}

test_findings if {
	table := {
		"hardware": {"must": [["one", "in", "list"]], "better": [["absent", "equals", "number"]]},
		"configuration": {"must": [[["deep", "er"], "is", "b"]]},
	}
	found := checks.findings("tee", claims, table) with data.kbs.reference as references
	found == [
		{
			"rule": "configuration", "claim": "tee.deep.er", "reference": null,
			"seen": "a", "expected": "b", "ok": false,
		},
		{
			"rule": "hardware", "claim": "tee.one", "reference": "list",
			"seen": 1, "expected": [1, "a", null], "ok": true, "comparison": "in",
		},
		{
			"rule": "hardware", "claim": "tee.absent", "reference": "number",
			"seen": null, "expected": 4, "ok": false, "comparison": "equals",
		},
	]
}

test_finding_of_an_unregistered_value if {
	some found in checks.findings("tee", claims, {"hardware": {"must": [["one", "in", "unregistered"]]}}) with data.kbs.reference as references
	found.expected == null
	found.ok == false
}

test_at_most if {
	every seen in [0, 29, 30] {
		checks.compare("at most", seen, "n") with data.kbs.reference as {"n": 30}
	}
	every seen in [31, "30", null, true, []] {
		not checks.compare("at most", seen, "n") with data.kbs.reference as {"n": 30}
	}
	every reference in [null, "30", true, [30]] {
		not checks.compare("at most", 1, "n") with data.kbs.reference as {"n": reference}
	}
	not checks.compare("at most", 1, "n")
}

test_all_in if {
	every seen in [["a"], ["a", "b", "a"]] {
		checks.compare("all in", seen, "list") with data.kbs.reference as {"list": ["a", "b"]}
	}
	every seen in [[], ["a", "c"], ["a", null], [null], "a", null, {"a": "a"}] {
		not checks.compare("all in", seen, "list") with data.kbs.reference as {"list": ["a", "b", null]}
	}
	every reference in [null, "a", {"a": "a"}, true] {
		not checks.compare("all in", ["a"], "list") with data.kbs.reference as {"list": reference}
	}
	not checks.compare("all in", ["a"], "list")
}
