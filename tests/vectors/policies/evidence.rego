# An evidence policy that answers what its input tells it to: see SOURCE.md.
package policy

trust_claims := input.trust_claims if not input.bomb

trust_claims := {"hardware": 3} if input.conflict

trust_claims := {"hardware": bomb(input.bomb)} if input.bomb

extensions := input.extensions if not input.call

extensions := [{"name": "answer", "key": 1, "value": call(input.call[0], input.call[1])}] if input.call

extensions := [{"name": "reference", "key": 1, "value": query_reference_value(input.ask)}] if not is_null(input.ask)

findings := input.findings

bomb("range") := count(numbers.range(1, 1000000000))

bomb("loops") := count([1 | some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); a + b == 0])

bomb("text") := count(concat("", [input.text | some _ in numbers.range(1, 200000)]))

bomb("replace") := count(replace(replace(input.text, "", input.text), "", input.text))

bomb("calls") := count([1 | some a in numbers.range(1, 10000); sprintf("%d", [a]) == "x"])

call("base64url.encode_no_pad", x) := base64url.encode_no_pad(x[0])

call("crypto.hmac.equal", x) := crypto.hmac.equal(x[0], x[1])

call("crypto.hmac.sha256", x) := crypto.hmac.sha256(x[0], x[1])

call("crypto.sha256", x) := crypto.sha256(x[0])

call("hex.decode", x) := hex.decode(x[0])

call("hex.encode", x) := hex.encode(x[0])

call("object.subset", x) := object.subset(x[0], x[1])

call("object.subset of sets", x) := object.subset({y | some y in x[0]}, {y | some y in x[1]})

call("regex.find_n", x) := regex.find_n(x[0], x[1], x[2])

call("regex.replace", x) := regex.replace(x[0], x[1], x[2])

call("regex.split", x) := regex.split(x[0], x[1])

call("semver.compare", x) := semver.compare(x[0], x[1])

call("semver.is_valid", x) := semver.is_valid(x[0])

call("sprintf", x) := sprintf(x[0], x[1])

call("strings.any_prefix_match", x) := strings.any_prefix_match(x[0], x[1])

call("strings.count", x) := strings.count(x[0], x[1])

call("time.date", x) := time.date(x[0])

call("time.now_ns", _) := [time.now_ns(), time.now_ns()]

call("time.parse_duration_ns", x) := time.parse_duration_ns(x[0])

call("time.parse_rfc3339_ns", x) := time.parse_rfc3339_ns(x[0])

call("uuid.parse", x) := uuid.parse(x[0])

call("echo", x) := x
