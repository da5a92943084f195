// Command snp asks go-sev-guest about SNP reports: signature, chain, revocation, and report against certificate.
package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
	"kbs.example/crosscheck/lines"
)

// Question: bytes in base64, certificates and list in DER.
type Question struct {
	Report     []byte    `json:"report"`
	Vek        []byte    `json:"vek"`
	Ark        []byte    `json:"ark"`
	Ask        []byte    `json:"ask"`
	Asvk       []byte    `json:"asvk"`
	Crl        []byte    `json:"crl"`
	Product    string    `json:"product"`
	ReportData []byte    `json:"report_data"`
	Now        time.Time `json:"now"`
}

type offline struct{}

func (offline) Get(string) ([]byte, error) {
	return nil, errors.New("no network")
}

func roots(question Question) (*trust.AMDRootCerts, error) {
	certificates := &trust.ProductCerts{}
	for _, each := range []struct {
		der  []byte
		into **x509.Certificate
	}{{question.Ark, &certificates.Ark}, {question.Ask, &certificates.Ask}, {question.Asvk, &certificates.Asvk}} {
		if len(each.der) == 0 {
			continue
		}
		certificate, err := x509.ParseCertificate(each.der)
		if err != nil {
			return nil, err
		}
		*each.into = certificate
	}
	found := &trust.AMDRootCerts{ProductLine: question.Product, ProductCerts: certificates}
	if len(question.Crl) != 0 {
		list, err := x509.ParseRevocationList(question.Crl)
		if err != nil {
			return nil, err
		}
		found.CRL = list
	}
	return found, nil
}

func judge(question Question) lines.Verdict {
	if len(question.Report) != abi.ReportSize {
		return lines.Refused(fmt.Errorf("report of %d bytes", len(question.Report))) // the library ignores what follows
	}
	report, err := abi.ReportToProto(question.Report)
	if err != nil {
		return lines.Refused(err)
	}
	root, err := roots(question)
	if err != nil {
		return lines.Refused(err)
	}
	signer, err := abi.ParseSignerInfo(report.SignerInfo)
	if err != nil {
		return lines.Refused(err)
	}
	chain := &spb.CertificateChain{}
	if signer.SigningKey == abi.VlekReportSigner {
		chain.VlekCert = question.Vek
	} else {
		chain.VcekCert = question.Vek
	}
	attestation := &spb.Attestation{Report: report, CertificateChain: chain}
	options := &verify.Options{
		CheckRevocations:    len(question.Crl) != 0,
		DisableCertFetching: true,
		Getter:              offline{},
		Now:                 question.Now,
		TrustedRoots:        map[string][]*trust.AMDRootCerts{question.Product: {root}},
	}
	if err := verify.SnpAttestation(attestation, options); err != nil {
		return lines.Refused(err)
	}
	again, err := abi.ReportToAbiBytes(report)
	if err != nil {
		return lines.Refused(err)
	}
	if !bytes.Equal(again[:0x2a0], question.Report[:0x2a0]) {
		return lines.Refused(errors.New("signed bytes do not survive parsing"))
	}
	// Everything that a guest's owner may allow is allowed: what is left must hold for any report.
	policy := validate.Options{
		GuestPolicy:               abi.SnpPolicy{SMT: true, MigrateMA: true, Debug: true, CXLAllowed: true},
		ReportData:                question.ReportData,
		PermitProvisionalFirmware: true,
	}
	return lines.Of(validate.SnpAttestation(attestation, &policy))
}

func main() {
	lines.Answer(judge)
}
