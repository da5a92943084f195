// A Kubernetes control plane for tests: etcd, kube-apiserver and controllers in one process, or one by one.
//
//	controlplane all DIR [FLAG of kube-apiserver ...]
//	controlplane etcd DIR
//	controlplane apiserver DIR [FLAG ...]
//	controlplane controllers DIR
//
// DIR (made if it is not there, mode 0700) keeps the credentials, the ports and etcd's data, so that a part that is ended
// and started again is the same part again. The administrator's kubeconfig is DIR/kubeconfig.
//
// Each prints one line, "ready", when it answers, and ends at the end of its standard input: whoever starts it holds the
// other end of the pipe, so that nothing outlives a test run. Logs go to standard error. No kubelet and no scheduler are
// here: Pods are stored and never run.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

const usage = "usage: controlplane all|etcd|apiserver|controllers DIR [FLAG of kube-apiserver ...]"

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// write puts the file there as a whole or not at all.
func (f folder) write(name string, data []byte) {
	must(os.WriteFile(f.path(name+".part"), data, 0o600))
	must(os.Rename(f.path(name+".part"), f.path(name)))
}

// port is one that was free when first asked for, and the same ever after.
func (f folder) port(name string) string {
	if kept, err := os.ReadFile(f.path(name)); err == nil {
		return string(kept)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(err)
	f.write(name, []byte(port))
	return port
}

func (f folder) etcdURL() url.URL {
	return url.URL{Scheme: "http", Host: "127.0.0.1:" + f.port("etcd.port")}
}

// credentials makes the certificates, the keys and the kubeconfig, unless they are there.
func (f folder) credentials() {
	if _, err := os.Stat(f.path("kubeconfig")); err == nil {
		return
	}
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)} // the second is the Service that Pods call
	crt, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", addresses, []string{"localhost", "kubernetes.default.svc"})
	must(err)
	accounts, err := keyutil.MakeEllipticPrivateKeyPEM()
	must(err)
	token := rand.Text()
	f.write("tls.crt", crt)
	f.write("tls.key", key)
	f.write("sa.key", accounts)
	f.write("tokens.csv", []byte(token+",admin,admin,system:masters\n"))
	config := api.NewConfig()
	config.Clusters["test"] = &api.Cluster{Server: "https://127.0.0.1:" + f.port("apiserver.port"), CertificateAuthorityData: crt}
	config.AuthInfos["admin"] = &api.AuthInfo{Token: token}
	config.Contexts["test"], config.CurrentContext = &api.Context{Cluster: "test", AuthInfo: "admin"}, "test"
	written, err := clientcmd.Write(*config)
	must(err)
	f.write("kubeconfig", written)
}

func (f folder) client() *kubernetes.Clientset {
	config, err := clientcmd.BuildConfigFromFlags("", f.path("kubeconfig"))
	must(err)
	client, err := kubernetes.NewForConfig(config)
	must(err)
	return client
}

func (f folder) etcd() {
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:" + f.port("peer.port")}
	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.UnsafeNoFsync = f.path("etcd"), "error", true
	config.ListenClientUrls = []url.URL{f.etcdURL()}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	must(err)
	<-server.Server.ReadyNotify()
}

func (f folder) apiserver(flags []string) {
	f.credentials()
	store := f.etcdURL()
	go run(apiserver.NewAPIServerCommand(), append([]string{
		"--etcd-servers=" + store.String(), "--secure-port=" + f.port("apiserver.port"), "--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--allow-privileged",
		"--tls-cert-file=" + f.path("tls.crt"), "--tls-private-key-file=" + f.path("tls.key"),
		"--token-auth-file=" + f.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + f.path("sa.key"), "--service-account-key-file=" + f.path("sa.key"),
	}, flags...))
	rest := f.client().RESTClient()
	until(func() error { return rest.Get().AbsPath("/readyz").Do(context.Background()).Error() })
}

func (f folder) controllers() {
	config, err := clientcmd.BuildConfigFromFlags("", f.path("kubeconfig"))
	must(err)
	runControllers(context.Background(), config, f.path("tls.crt"))
	accounts := f.client().CoreV1().ServiceAccounts("default")
	until(func() error {
		_, err := accounts.Get(context.Background(), "default", metav1.GetOptions{})
		return err
	})
}

// run ends the program when the component ends: one that goes on without a part would look alive.
func run(command *cobra.Command, flags []string) {
	command.SetArgs(flags)
	must(command.ExecuteContext(context.Background()))
	os.Exit(0)
}

func until(try func() error) {
	deadline := time.Now().Add(2 * time.Minute)
	for err := try(); err != nil; err = try() {
		if time.Now().After(deadline) {
			must(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func main() {
	if len(os.Args) < 3 || (len(os.Args) > 3 && os.Args[1] != "all" && os.Args[1] != "apiserver") {
		must(fmt.Errorf("%s", usage))
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	f, flags := folder(os.Args[2]), os.Args[3:]
	must(os.MkdirAll(string(f), 0o700))
	switch os.Args[1] {
	case "all":
		f.etcd()
		f.apiserver(flags)
		f.controllers()
	case "etcd":
		f.etcd()
	case "apiserver":
		f.apiserver(flags)
	case "controllers":
		f.controllers()
	default:
		must(fmt.Errorf("%s", usage))
	}
	fmt.Println("ready")
	select {}
}
