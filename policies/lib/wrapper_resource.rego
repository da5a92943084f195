# Entry points over a resource policy. Takes {"claims": …, "request": {"plugin", "resource-path", "query"}}.
#
# Policies read the request from `data`. `with` gives it to them per evaluation: written into the store of a shared OPA
# server it would be a race between requests.
package kbs.resource

verdict["allow"] := value if {
	is_object(input.claims)
	value := data.policy.allow with input as input.claims
		with data.plugin as input.request.plugin
		with data["resource-path"] as input.request["resource-path"]
		with data.query as input.request.query
}

# An entry point of its own, so that a decision never pays for its explanation.
explanation["findings"] := value if {
	is_object(input.claims)
	value := data.policy.findings with input as input.claims
		with data.plugin as input.request.plugin
		with data["resource-path"] as input.request["resource-path"]
		with data.query as input.request.query
}
