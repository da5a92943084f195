// Command images asks ocicrypt, the library behind skopeo, buildah and containerd, about encrypted layers. It writes and
// opens annotation packets with Go's own AES-GCM and AES-CTR.
package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"kbs.example/crosscheck/lines"
)

const scheme = "provider.attestation-agent"

// Question: a layer to encrypt, or with annotations one to decrypt. KEK of 32 bytes; all bytes in base64.
type Question struct {
	Layer       []byte            `json:"layer"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
	KEK         []byte            `json:"kek"`
	Kid         string            `json:"kid"`
	WrapType    string            `json:"wrap_type"`
}

// packet has its members in the order of the reference; bytes become standard base64.
type packet struct {
	Kid         string `json:"kid"`
	WrappedData []byte `json:"wrapped_data"`
	IV          []byte `json:"iv"`
	WrapType    string `json:"wrap_type"`
}

type provider struct{ question Question }

func (p provider) WrapKeys(_ *config.EncryptConfig, options []byte) ([]byte, error) {
	block, err := aes.NewCipher(p.question.KEK)
	if err != nil {
		return nil, err
	}
	made := packet{Kid: p.question.Kid, WrapType: p.question.WrapType, IV: make([]byte, 12)}
	if made.WrapType == "A256CTR" {
		made.IV = make([]byte, 16)
	}
	rand.Read(made.IV)
	if made.WrapType == "A256CTR" {
		made.WrappedData = make([]byte, len(options))
		cipher.NewCTR(block, made.IV).XORKeyStream(made.WrappedData, options)
	} else {
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		made.WrappedData = gcm.Seal(nil, made.IV, options, nil)
	}
	return json.Marshal(made)
}

func (p provider) UnwrapKey(_ *config.DecryptConfig, raw []byte) ([]byte, error) {
	var read packet
	if err := json.Unmarshal(raw, &read); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(p.question.KEK)
	if err != nil {
		return nil, err
	}
	switch {
	case read.WrapType == "A256GCM" && len(read.IV) == 12:
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		return gcm.Open(nil, read.IV, read.WrappedData, nil)
	case read.WrapType == "A256CTR" && len(read.IV) == 16:
		plain := make([]byte, len(read.WrappedData))
		cipher.NewCTR(block, read.IV).XORKeyStream(plain, read.WrappedData)
		return plain, nil
	}
	return nil, errors.New("unknown wrap type or length of its iv")
}

func (provider) GetAnnotationID() string {
	return "org.opencontainers.image.enc.keys.provider.attestation-agent"
}
func (provider) NoPossibleKeys(map[string][][]byte) bool      { return false }
func (provider) GetPrivateKeys(map[string][][]byte) [][]byte  { return nil }
func (provider) GetKeyIdsFromPacket(string) ([]uint64, error) { return nil, nil }
func (provider) GetRecipients(string) ([]string, error)       { return nil, nil }

func judge(question Question) lines.Verdict {
	ocicrypt.RegisterKeyWrapper(scheme, provider{question})
	layer := ocispec.Descriptor{Digest: digest.Digest(question.Digest), Size: int64(len(question.Layer)), Annotations: question.Annotations}
	if len(question.Annotations) > 0 {
		keys := map[string][][]byte{"attestation-agent": {[]byte("any")}}
		reader, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{Parameters: keys}, bytes.NewReader(question.Layer), layer, false)
		if err != nil {
			return lines.Refused(err)
		}
		plain, err := io.ReadAll(reader)
		if err != nil {
			return lines.Refused(err)
		}
		return lines.Verdict{Accepted: true, Facts: map[string]any{"layer": plain}}
	}
	parameters := map[string][][]byte{"attestation-agent": {[]byte("any")}}
	reader, finish, err := ocicrypt.EncryptLayer(&config.EncryptConfig{Parameters: parameters}, bytes.NewReader(question.Layer), layer)
	if err != nil {
		return lines.Refused(err)
	}
	sealed, err := io.ReadAll(reader)
	if err != nil {
		return lines.Refused(err)
	}
	annotations, err := finish()
	if err != nil {
		return lines.Refused(err)
	}
	return lines.Verdict{Accepted: true, Facts: map[string]any{"layer": sealed, "annotations": annotations}}
}

func main() { lines.Answer(judge) }
