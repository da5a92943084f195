// Copies an image between two places with the libraries under skopeo, buildah and podman, and has ocicrypt encrypt or
// decrypt its layers on the way:
//
//	imagecopy [-encrypt KEY] [-decrypt KEY] SOURCE TARGET
//
// Which key providers there are, OCICRYPT_KEYPROVIDER_CONFIG says.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/ocicrypt/helpers"
)

func run(encrypt, decrypt, source, target string) error {
	from, err := alltransports.ParseImageName(source)
	if err != nil {
		return err
	}
	to, err := alltransports.ParseImageName(target)
	if err != nil {
		return err
	}
	options := copy.Options{ImageListSelection: copy.CopySystemImage}
	if encrypt != "" {
		keys, err := helpers.CreateCryptoConfig([]string{encrypt}, nil)
		if err != nil {
			return err
		}
		options.OciEncryptConfig = keys.EncryptConfig
		options.OciEncryptLayers = &[]int{} // all of them; nil would be none
	}
	if decrypt != "" {
		keys, err := helpers.CreateCryptoConfig(nil, []string{decrypt})
		if err != nil {
			return err
		}
		options.OciDecryptConfig = keys.DecryptConfig
	}
	anything := signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: anything})
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, to, from, &options)
	return err
}

func main() {
	encrypt := flag.String("encrypt", "", "encrypt all layers with this key")
	decrypt := flag.String("decrypt", "", "decrypt layers with this key")
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*encrypt, *decrypt, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
