// Command tdx asks go-tdx-guest about TDX quotes, with collateral served from the question instead of Intel's service.
package main

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/verify"
	"kbs.example/crosscheck/lines"
)

// Collateral is a bundle with the members that quote verification libraries agree on.
type Collateral struct {
	PckCrlIssuerChain     string `json:"pck_crl_issuer_chain"`
	RootCaCrl             string `json:"root_ca_crl"`
	PckCrl                string `json:"pck_crl"`
	TcbInfoIssuerChain    string `json:"tcb_info_issuer_chain"`
	TcbInfo               string `json:"tcb_info"`
	TcbInfoSignature      string `json:"tcb_info_signature"`
	QeIdentityIssuerChain string `json:"qe_identity_issuer_chain"`
	QeIdentity            string `json:"qe_identity"`
	QeIdentitySignature   string `json:"qe_identity_signature"`
}

// Question: quote in base64, root in DER and base64.
type Question struct {
	Quote      []byte     `json:"quote"`
	Collateral Collateral `json:"collateral"`
	Root       []byte     `json:"root"`
	Now        time.Time  `json:"now"`
}

func (given Collateral) Get(address string) (map[string][]string, []byte, error) {
	switch {
	case strings.Contains(address, "/tcb?"):
		body := fmt.Sprintf(`{"tcbInfo":%s,"signature":"%s"}`, given.TcbInfo, given.TcbInfoSignature)
		return header("Tcb-Info-Issuer-Chain", given.TcbInfoIssuerChain), []byte(body), nil
	case strings.Contains(address, "/qe/identity"):
		body := fmt.Sprintf(`{"enclaveIdentity":%s,"signature":"%s"}`, given.QeIdentity, given.QeIdentitySignature)
		return header("Sgx-Enclave-Identity-Issuer-Chain", given.QeIdentityIssuerChain), []byte(body), nil
	case strings.Contains(address, "/pckcrl?"):
		list, err := hex.DecodeString(given.PckCrl)
		return header("Sgx-Pck-Crl-Issuer-Chain", given.PckCrlIssuerChain), list, err
	default:
		list, err := hex.DecodeString(given.RootCaCrl)
		if len(list) == 0 {
			err = errors.New("no root list")
		}
		return nil, list, err
	}
}

func header(name, chain string) map[string][]string {
	return map[string][]string{name: {url.QueryEscape(chain)}}
}

func judge(question Question) lines.Verdict {
	root, err := x509.ParseCertificate(question.Root)
	if err != nil {
		return lines.Refused(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(root)
	options := &verify.Options{
		CheckRevocations: true,
		GetCollateral:    true,
		Getter:           question.Collateral,
		Now:              question.Now,
		TrustedRoots:     trusted,
	}
	return lines.Of(verify.RawTdxQuote(question.Quote, options))
}

func main() {
	lines.Answer(judge)
}
