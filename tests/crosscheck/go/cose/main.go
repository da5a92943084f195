// Command cose asks go-cose about COSE_Sign1 messages, as in Arm CCA tokens and AWS Nitro documents.
package main

import (
	"crypto/x509"
	"encoding/hex"

	"github.com/veraison/go-cose"
	"kbs.example/crosscheck/lines"
)

// Question: message in base64, key as SubjectPublicKeyInfo.
type Question struct {
	Message []byte `json:"message"`
	Key     []byte `json:"key"`
	Tagged  bool   `json:"tagged"`
}

func judge(question Question) lines.Verdict {
	key, err := x509.ParsePKIXPublicKey(question.Key)
	if err != nil {
		return lines.Refused(err)
	}
	var message cose.Sign1Message
	if question.Tagged {
		err = message.UnmarshalCBOR(question.Message)
	} else {
		var untagged cose.UntaggedSign1Message
		err = untagged.UnmarshalCBOR(question.Message)
		message = cose.Sign1Message(untagged)
	}
	if err != nil {
		return lines.Refused(err)
	}
	algorithm, err := message.Headers.Protected.Algorithm()
	if err != nil {
		return lines.Refused(err)
	}
	verifier, err := cose.NewVerifier(algorithm, key)
	if err != nil {
		return lines.Refused(err)
	}
	if err := message.Verify(nil, verifier); err != nil {
		return lines.Refused(err)
	}
	return lines.Verdict{Accepted: true, Facts: map[string]any{"payload": hex.EncodeToString(message.Payload)}}
}

func main() {
	lines.Answer(judge)
}
