package resource_by_image_test

import data.kbs.samples
import data.policy

decided(claims, path) := answer if {
	answer := policy.allow with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as path
		with data.query as {}
}

explained(claims, path) := answer if {
	answer := policy.findings with input as claims
		with data.plugin as "resource"
		with data["resource-path"] as path
		with data.query as {}
}

allowed(claims, path) if {
	decided(claims, path) == true
	every finding in explained(claims, path) {
		finding.ok
	}
}

refused(claims, path) if {
	decided(claims, path) == false
	some finding in explained(claims, path)
	finding.ok == false
}

put(doc, path, value) := json.patch(doc, [{"op": "add", "path": path, "value": value}])

evidence := ["submods", "cpu0", "ear.veraison.annotated-evidence"]

containers := array.concat(evidence, ["init_data_claims", "agent_policy_claims", "containers"])

test_what_the_default_refuses if {
	every claims in [{}, samples.token("sample", 2), put(good, ["submods", "cpu0", "ear.status"], "warning")] {
		refused(claims, ["default", digest, "key"])
	}
	policy.allow == false with input as good with data.plugin as "pkcs11" with data["resource-path"] as ["default", digest, "key"]
	policy.allow == false with input as good with data["resource-path"] as ["default", digest, "key"]
}

good := samples.token("snp", 2)

test_unrecognized if {
	every identity in [0, 97, null, "2"] {
		refused(samples.token("snp", identity), ["default", digest, "key"])
	}
	refused(json.remove(good, [["submods", "cpu0", "ear.trustworthiness-vector"]]), ["default", digest, "key"])
}

digest := "1111111111111111111111111111111111111111111111111111111111111111"

test_image if {
	allowed(good, ["default", digest, "key"])
	every path in [[digest, "default", "key"], ["default", "1111", "key"], ["default", samples.image, "key"], ["default"], [], null] {
		refused(good, path)
	}
}

test_a_second_image if {
	every image in [concat("", ["x@sha256:", replace(digest, "1", "2")]), "x:latest", "x@sha256:11", null, ""] {
		other := put(good, array.concat(containers, ["-"]), samples.container({"io.kubernetes.cri.image-name": image}))
		refused(other, ["default", digest, "key"])
	}
	same := put(
		good, array.concat(containers, ["-"]),
		samples.container({"io.kubernetes.cri.image-name": concat("", ["mirror.example/api@sha256:", digest])}),
	)
	allowed(same, ["default", digest, "key"])
}

test_no_image if {
	refused(put(good, containers, []), ["default", digest, "key"])
	refused(put(good, containers, []), ["default", null, "key"])
	tagged := put(good, containers, [samples.container({"io.kubernetes.cri.image-name": "x:latest"})])
	refused(tagged, ["default", null, "key"])
	refused(tagged, ["default", "latest", "key"])
}
