// Command eventlog asks go-eventlog whether an event log leads to the registers beside it, and what was measured.
package main

import (
	"crypto"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"kbs.example/crosscheck/lines"
)

// Question: log in base64, registers in hex by their number in the log.
type Question struct {
	Log       []byte            `json:"log"`
	Bank      string            `json:"bank"`
	Registers map[string]string `json:"registers"`
	Padded    bool              `json:"padded"`
}

var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384}

func registers(question Question) ([]register.MR, error) {
	hash, known := hashes[question.Bank]
	if !known {
		return nil, fmt.Errorf("bank %s", question.Bank)
	}
	var found []register.MR
	for name, text := range question.Registers {
		number, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		value, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		found = append(found, register.PCR{Index: number, Digest: value, DigestAlg: hash})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Idx() < found[j].Idx() })
	return found, nil
}

func judge(question Question) lines.Verdict {
	values, err := registers(question)
	if err != nil {
		return lines.Refused(err)
	}
	log, err := tcg.ParseEventLog(question.Log, tcg.ParseOpts{AllowPadding: question.Padded})
	if err != nil {
		return lines.Refused(err)
	}
	events, err := log.Verify(values)
	if err != nil {
		return lines.Refused(err)
	}
	measured := []string{}
	for _, event := range events {
		measured = append(measured, fmt.Sprintf("%d %x", event.Index, event.Digest))
	}
	return lines.Verdict{Accepted: true, Facts: map[string]any{"measured": measured}}
}

func main() {
	lines.Answer(judge)
}
