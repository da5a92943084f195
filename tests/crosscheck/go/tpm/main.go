// Command tpm asks go-attestation about TPM quotes: signature, nonce and PCR values.
package main

import (
	"crypto"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/hex"

	"github.com/google/go-attestation/attest"
	"kbs.example/crosscheck/lines"
)

// Question: bytes in base64, key as SubjectPublicKeyInfo, PCR values in hex.
type Question struct {
	Ak        []byte   `json:"ak"`
	Message   []byte   `json:"message"`
	Signature []byte   `json:"signature"`
	Pcrs      []string `json:"pcrs"`
	Nonce     []byte   `json:"nonce"`
}

func judge(question Question) lines.Verdict {
	key, err := x509.ParsePKIXPublicKey(question.Ak)
	if err != nil {
		return lines.Refused(err)
	}
	var pcrs []attest.PCR
	for index, text := range question.Pcrs {
		value, err := hex.DecodeString(text)
		if err != nil {
			return lines.Refused(err)
		}
		pcrs = append(pcrs, attest.PCR{Index: index, Digest: value, DigestAlg: crypto.SHA256})
	}
	ak := attest.AKPublic{Public: key, Hash: crypto.SHA256}
	quote := attest.Quote{Quote: question.Message, Signature: question.Signature}
	return lines.Of(ak.Verify(quote, pcrs, question.Nonce))
}

func main() {
	lines.Answer(judge)
}
