package main

import (
	"context"
	"os"
	"time"

	"k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"
	"k8s.io/kubernetes/pkg/controller/volume/pvcprotection"
)

const (
	workers  = 5
	resync   = 10 * time.Minute
	discover = 5 * time.Second // until the garbage collector knows a new custom resource
)

// runControllers starts Kubernetes' own controllers, those that tests rely on, and returns at once. The program
// kube-controller-manager has them all, and takes a fifth of the time to compile this one for nodes, volumes and clouds.
// Each acts as the service account that it has in a real cluster, with that one's rights.
func runControllers(ctx context.Context, config *rest.Config, rootCA string) {
	as := func(account string) *rest.Config {
		mine := rest.AddUserAgent(rest.CopyConfig(config), account)
		mine.QPS, mine.Burst = 1000, 2000
		mine.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:kube-system:" + account,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
		}
		return mine
	}
	client := func(account string) kubernetes.Interface {
		made, err := kubernetes.NewForConfig(as(account))
		must(err)
		return made
	}
	everything, err := kubernetes.NewForConfig(config)
	must(err)
	onlyMetadata, err := metadata.NewForConfig(config)
	must(err)
	shared := informers.NewSharedInformerFactory(everything, resync)
	sharedMetadata := metadatainformer.NewSharedInformerFactory(onlyMetadata, resync)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(everything.Discovery()))
	started := make(chan struct{})

	apps, batch, core := shared.Apps().V1(), shared.Batch().V1(), shared.Core().V1()
	pods := core.Pods()

	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), pods, client("deployment-controller"))
	must(err)
	replicaSets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), pods, client("replicaset-controller"), replicaset.BurstReplicas)
	statefulSets := statefulset.NewStatefulSetController(ctx, pods, apps.StatefulSets(), core.PersistentVolumeClaims(), apps.ControllerRevisions(), client("statefulset-controller"))
	daemonSets, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), pods, core.Nodes(), client("daemon-set-controller"), flowcontrol.NewBackOff(time.Second, time.Minute))
	must(err)
	jobs, err := job.NewController(ctx, client("job-controller"), pods, batch.Jobs(), nil, nil)
	must(err)
	cronJobs, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), client("cronjob-controller"))
	must(err)
	finished := ttlafterfinished.New(ctx, batch.Jobs(), client("ttl-after-finished-controller"))
	slices := endpointslice.NewController(ctx, pods, core.Services(), core.Nodes(), shared.Discovery().V1().EndpointSlices(), 100, client("endpointslice-controller"), 0)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), client("service-account-controller"), serviceaccount.DefaultServiceAccountsControllerOptions())
	must(err)
	claims, err := pvcprotection.NewPVCProtectionController(klog.FromContext(ctx), core.PersistentVolumeClaims(), pods, client("pvc-protection-controller"))
	must(err)
	roles := clusterroleaggregation.NewClusterRoleAggregation(shared.Rbac().V1().ClusterRoles(), client("clusterrole-aggregation-controller").RbacV1())
	authority, err := os.ReadFile(rootCA)
	must(err)
	authorities, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client("root-ca-cert-publisher"), authority)
	must(err)

	disruptor := client("disruption-controller")
	scales, err := scale.NewForConfig(as("disruption-controller"), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disruptor.Discovery()))
	must(err)
	budgets := disruption.NewDisruptionController(ctx, pods, shared.Policy().V1().PodDisruptionBudgets(), core.ReplicationControllers(), apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(), disruptor, mapper, scales, disruptor.Discovery())

	namespaced, err := metadata.NewForConfig(as("namespace-controller"))
	must(err)
	namespacer := client("namespace-controller")
	namespaces := namespace.NewNamespaceController(ctx, namespacer, namespaced, namespacer.Discovery().ServerPreferredNamespacedResources, core.Namespaces(), resync, v1.FinalizerKubernetes)

	collector := client("generic-garbage-collector")
	collected, err := metadata.NewForConfig(as("generic-garbage-collector"))
	must(err)
	events := map[schema.GroupResource]struct{}{{Resource: "events"}: {}, {Group: "events.k8s.io", Resource: "events"}: {}}
	graph := garbagecollector.NewDependencyGraphBuilder(ctx, collected, mapper, events, informerfactory.NewInformerFactory(shared, sharedMetadata), started)
	garbage, err := garbagecollector.NewComposedGarbageCollector(ctx, collector, collected, mapper, graph)
	must(err)

	for _, each := range []interface{ Run(context.Context, int) }{
		deployments, replicaSets, statefulSets, daemonSets, jobs, cronJobs, finished, slices, accounts, claims, roles, authorities, namespaces,
	} {
		go each.Run(ctx, workers)
	}
	go budgets.Run(ctx)
	go garbage.Run(ctx, workers, 30*time.Second)
	go garbage.Sync(ctx, discovery.ServerResourcesInterface(collector.Discovery()), discover)
	shared.Start(ctx.Done())
	sharedMetadata.Start(ctx.Done())
	close(started)
}
