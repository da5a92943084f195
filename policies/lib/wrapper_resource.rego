# Entry points over a resource policy. Takes {"claims": …, "request": {"plugin", "resource-path", "query", "identity"?}}.
#
# Policies read the request from `data`. `with` gives it to them per evaluation: written into the store of a shared OPA
# server it would be a race between requests. Who the guest says it is (`identity`) is there too, and not in `input`: no
# token that any issuer signs can hold a claim that looks like it.
package kbs.resource

verdict["allow"] := value if {
	is_object(input.claims)
	identity := object.get(input.request, "identity", {})
	value := data.policy.allow with input as input.claims
		with data.plugin as input.request.plugin
		with data["resource-path"] as input.request["resource-path"]
		with data.query as input.request.query
		with data.identity as identity
}

# An entry point of its own, so that a decision never pays for its explanation.
explanation["findings"] := value if {
	is_object(input.claims)
	identity := object.get(input.request, "identity", {})
	value := data.policy.findings with input as input.claims
		with data.plugin as input.request.plugin
		with data["resource-path"] as input.request["resource-path"]
		with data.query as input.request.query
		with data.identity as identity
}
