package resource_by_pod_identity_test

import data.kbs.samples
import data.policy

good := samples.token("snp", 2)

pod := {
	"cluster": "east", "namespace": "payments", "serviceaccount": "api", "serviceaccount_uid": "a-1",
	"pod": "api-5c", "pod_uid": "p-1", "node": "n1", "checked": "review",
}

path := ["east", "payments.api", "key"]

decided(claims, asked, identity) := answer if {
	answer := policy.allow with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as asked
		with data.query as {}
		with data.identity as identity
}

explained(claims, asked, identity) := answer if {
	answer := policy.findings with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as asked
		with data.query as {}
		with data.identity as identity
}

refused(claims, asked, identity) if {
	decided(claims, asked, identity) == false
	some finding in explained(claims, asked, identity)
	finding.ok == false
}

put(doc, where, value) := json.patch(doc, [{"op": "add", "path": where, "value": value}])

test_evidence_and_identity if {
	decided(good, path, {"kubernetes": pod}) == true
	every finding in explained(good, path, {"kubernetes": pod}) {
		finding.ok
	}
}

# However good the Pod's token is.
test_identity_without_evidence if {
	every claims in [{}, samples.token("sample", 2), put(good, ["submods", "cpu0", "ear.status"], "warning")] {
		refused(claims, path, {"kubernetes": pod})
	}
	policy.allow == false with input as good
		with data.plugin as "pkcs11"
		with data["resource-path"] as path
		with data.identity as {"kubernetes": pod}
}

test_evidence_without_identity if {
	every identity in [{}, null, [], {"kubernetes": null}, {"kubernetes": {}}, {"other": pod}, pod] {
		refused(good, path, identity)
	}
	policy.allow == false with input as good with data.plugin as "resource" with data["resource-path"] as path
}

# What a token of any issuer claims is no identity.
test_claims_that_look_like_one if {
	claims := put(good, ["identity"], {"kubernetes": pod})
	refused(claims, path, {})
}

test_another_one if {
	every member, value in {
		"cluster": "west", "namespace": "other", "serviceaccount": "default", "checked": "offline",
	} {
		refused(good, path, {"kubernetes": put(pod, [member], value)})
		refused(good, path, {"kubernetes": json.remove(pod, [member])})
		refused(good, path, {"kubernetes": put(pod, [member], 1)})
	}
	every asked in [["east", "payments.default", "key"], ["west", "payments.api", "key"], ["east"], [], null] {
		refused(good, asked, {"kubernetes": pod})
	}
}
