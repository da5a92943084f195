package kbs.findings_test

import data.kbs.findings

test_equals if {
	findings.equals("allow", "x", 1, 1).ok == true
	findings.equals("allow", "x", 1, "1").ok == false
	findings.equals("allow", "x", null, null).ok == false
	findings.equals("allow", "x", false, false) == {
		"rule": "allow", "claim": "x", "reference": null,
		"seen": false, "expected": false, "ok": true,
	}
}

test_one_of if {
	findings.one_of("allow", "x", 1, [1, 2]).ok == true
	findings.one_of("allow", "x", 3, [1, 2]).ok == false
	findings.one_of("allow", "x", null, [null]).ok == false
}

test_absent if {
	findings.absent("allow", "x", {}, "a") == {
		"rule": "allow", "claim": "x.a", "reference": null,
		"seen": null, "expected": null, "ok": true,
	}
	found := findings.absent("allow", "x", {"a": false}, "a")
	found.ok == false
	found.seen == "present"
	every document in [null, [], ["a"], "a", 1] {
		other := findings.absent("allow", "x", document, "a")
		other.ok == false
		other.seen == "not an object"
	}
}
