# A resource policy that answers what its claims tell it to: see SOURCE.md.
package policy

allow := input.answer if not input.bomb

allow := false if input.conflict

allow if count(numbers.range(1, input.bomb)) > 0

findings := [{
	"rule": "allow", "claim": "data.plugin", "reference": null,
	"seen": data.plugin, "expected": [data["resource-path"], data.query], "ok": true,
}]
