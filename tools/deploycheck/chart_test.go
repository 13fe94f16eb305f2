//go:build ignore

// Renders the Helm chart with Helm's own code, decodes what comes out strictly into the types of the Kubernetes API and of the
// Prometheus Operator, and holds each pod against the restricted Pod Security Standard and rules of ours. Run with
// go test -modfile=tools/helm.mod tools/deploycheck/chart_test.go.
package deploycheck

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

const needed = `
publicURL: https://hooks.example.com
database: {existingSecret: database}
keyset: {existingSecret: keyset}
`

const (
	logKey = "logKey: {existingSecret: log}\n"
	groups = `
groups:
  intake: {roles: [ingest], replicas: 3}
  api: {roles: [api], podAnnotations: {a: b}, resources: {limits: {memory: 1Gi}}}
  send: {roles: [deliver], env: [{name: KAPSEL_EGRESS_PROXY, valueFrom: {secretKeyRef: {name: proxy, key: url}}}]}
  seal: {roles: [seal], serviceAccountAnnotations: {a: b}}
`
	modules = `
keyset: {existingSecret: keyset, kms: awskms:///alias/secrets}
logKey:
  urls: ["awskms:///alias/log", "pkcs11:token=kapsel;object=log?module-path=/usr/lib/module.so&pin-source=/etc/kapsel/pin"]
  pinSecret: pin
  volumes: [{name: module, configMap: {name: module}}]
  volumeMounts: [{name: module, mountPath: /etc/module, readOnly: true}]
`
	all = `
ingress: {enabled: true, host: hooks.example.com, tlsSecret: tls, className: c}
networkPolicy:
  enabled: true
  clients: [{namespaceSelector: {matchLabels: {a: b}}}]
  monitoring: [{namespaceSelector: {}}]
  database: {peers: [{ipBlock: {cidr: 10.0.0.5/32}}], ports: [5432, 6432]}
  egress: [{ports: [{port: 4318}]}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true}
`
)

// rendered is what a chart makes, by type.
type rendered struct {
	names     []string // Kind/name
	pods      map[string]*corev1.PodTemplateSpec
	selectors map[string]*metav1.LabelSelector // of the workloads
	objects   []runtime.Object
}

func TestChartRendersSafePods(t *testing.T) {
	for name, c := range map[string]struct {
		values string
		want   []string
		kms    string // that the keyset is under
	}{
		"nodes that do everything": {values: needed + logKey, want: []string{
			"PodDisruptionBudget/kapsel", "Service/kapsel", "Service/kapsel-nodes", "ServiceAccount/kapsel", "StatefulSet/kapsel",
		}},
		"a group for each role": {values: needed + logKey + groups, want: []string{
			"Deployment/kapsel-api", "Deployment/kapsel-intake", "Deployment/kapsel-send",
			"PodDisruptionBudget/kapsel-api", "PodDisruptionBudget/kapsel-intake", "PodDisruptionBudget/kapsel-seal", "PodDisruptionBudget/kapsel-send",
			"Service/kapsel-api", "Service/kapsel-ingest", "Service/kapsel-nodes",
			"ServiceAccount/kapsel-api", "ServiceAccount/kapsel-intake", "ServiceAccount/kapsel-seal", "ServiceAccount/kapsel-send",
			"StatefulSet/kapsel-seal",
		}},
		"intake only": {values: needed + "groups: {intake: {roles: [ingest]}}\n" + all, want: []string{
			"Deployment/kapsel-intake", "Ingress/kapsel", "NetworkPolicy/kapsel-intake", "PodDisruptionBudget/kapsel-intake",
			"PrometheusRule/kapsel-alerts", "PrometheusRule/kapsel-recording", "Service/kapsel-ingest", "Service/kapsel-nodes",
			"ServiceAccount/kapsel-intake", "ServiceMonitor/kapsel",
		}},
		"intake only, where the log's key is named": {values: needed + logKey + "groups: {intake: {roles: [ingest]}}\n", want: []string{
			"Deployment/kapsel-intake", "PodDisruptionBudget/kapsel-intake", "Service/kapsel-ingest", "Service/kapsel-nodes", "ServiceAccount/kapsel-intake",
		}},
		"sealing only, without metrics": {values: needed + logKey + "groups: {seal: {roles: [seal]}}\nadmin: {enabled: false}\n", want: []string{
			"PodDisruptionBudget/kapsel-seal", "Service/kapsel-nodes", "ServiceAccount/kapsel-seal", "StatefulSet/kapsel-seal",
		}},
		"keys in modules": {values: needed + modules + groups, kms: "awskms:///alias/secrets"},
		"everything":      {values: needed + logKey + groups + all},
		"one group that serves all": {values: needed + logKey + all + "service: {type: LoadBalancer}\nstate: {storageClassName: fast}\ngroups: {front: {roles: [ingest, api]}, back: {roles: [deliver, seal]}}\n", want: []string{
			"Deployment/kapsel-front", "Ingress/kapsel", "NetworkPolicy/kapsel-back", "NetworkPolicy/kapsel-front",
			"PodDisruptionBudget/kapsel-back", "PodDisruptionBudget/kapsel-front", "PrometheusRule/kapsel-alerts", "PrometheusRule/kapsel-recording",
			"Service/kapsel", "Service/kapsel-nodes", "ServiceAccount/kapsel-back", "ServiceAccount/kapsel-front", "ServiceMonitor/kapsel", "StatefulSet/kapsel-back",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := decode(t, render(t, c.values))
			if c.want != nil && !slices.Equal(r.names, c.want) {
				t.Errorf("the chart makes\n%v: want\n%v", r.names, c.want)
			}
			for name, pod := range r.pods {
				checkRestricted(t, name, pod)
				checkPod(t, name, pod)
				checkKeys(t, name, pod)
				if kms := environment(pod.Spec.Containers[0])["KAPSEL_SECRETS_KMS"]; kms != c.kms {
					t.Errorf("%s opens the keyset with %q: want %q", name, kms, c.kms)
				}
			}
			checkSelectors(t, r)
		})
	}
}

// Only nodes with the role seal come near the log's key, wherever it is.
func checkKeys(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	var secrets []string
	for _, volume := range pod.Spec.Volumes {
		if volume.Secret != nil {
			secrets = append(secrets, volume.Secret.SecretName)
		}
		if volume.Projected != nil {
			for _, source := range volume.Projected.Sources {
				secrets = append(secrets, source.Secret.Name)
				if source.Secret.Name == "keyset" && !reflect.DeepEqual(source.Secret.Items, []corev1.KeyToPath{{Key: "secrets.keyset", Path: "secrets.keyset"}}) {
					t.Errorf("%s: of the keyset's secret it mounts %v", name, source.Secret.Items)
				}
			}
		}
	}
	node, install := pod.Spec.Containers[0], pod.Spec.InitContainers[0]
	args := strings.Join(node.Args, " ")
	seals := strings.Contains(environment(node)["KAPSEL_ROLES"], "seal")
	inModule := strings.Contains(args, "--log-key=awskms:///alias/log --log-key=pkcs11:token=kapsel;object=log?module-path=/usr/lib/module.so&pin-source=/etc/kapsel/pin")
	inFile := slices.Contains(secrets, "log")
	switch {
	case seals && inModule == inFile:
		t.Errorf("%s seals, and has the log's key in a module: %v, in a file: %v", name, inModule, inFile)
	case seals && inModule && !(slices.Contains(secrets, "pin") && mounts(node, "/etc/kapsel") && mounts(node, "/etc/module")):
		t.Errorf("%s signs in a module without its PIN or its configuration", name)
	case !seals && (inModule || inFile || slices.Contains(secrets, "pin") || mounts(node, "/etc/module") || strings.Contains(args, "log-key")):
		t.Errorf("%s does not seal, and has the log's key: %v, %s", name, secrets, args)
	}
	if keysetOnly := slices.Contains(install.Args, "--keyset-only"); keysetOnly == inFile {
		t.Errorf("%s: the files are installed by %v", name, install.Args)
	}
	if !slices.Contains(secrets, "keyset") {
		t.Errorf("%s has no keyset", name)
	}
}

func checkRestricted(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if !result.Allowed {
		t.Errorf("%s breaks the restricted Pod Security Standard: %s", name, result.ForbiddenDetail())
	}
}

// secretName matches variables whose value nobody should read in a manifest, and password what looks like one in a URL.
var (
	secretName = regexp.MustCompile(`DATABASE_URL|KEYSET|PASSWORD|TOKEN|_KEY$|API_KEY|PROXY`)
	password   = regexp.MustCompile(`://[^/@]*:[^/@]*@|pin-value`)
)

func checkPod(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	spec := pod.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s mounts a token of the Kubernetes API", name)
	}
	if spec.ServiceAccountName == "" || spec.ServiceAccountName == "default" {
		t.Errorf("%s runs as the namespace's service account", name)
	}
	if grace := spec.TerminationGracePeriodSeconds; grace == nil || *grace < 60+5+15 {
		t.Errorf("%s has %v s to stop: less than a drain takes", name, grace)
	}
	for _, container := range append(slices.Clone(spec.InitContainers), spec.Containers...) {
		where := name + ", container " + container.Name
		if s := container.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s can write to its image", where)
		}
		if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Memory().IsZero() || container.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s has no memory limit or no requests: %v", where, container.Resources)
		}
		if _, tag, found := strings.Cut(container.Image, ":"); !found || tag == "latest" {
			t.Errorf("%s runs %s, which may be anything", where, container.Image)
		}
		for variable, value := range environment(container) {
			if value != "" && secretName.MatchString(variable) || password.MatchString(value) {
				t.Errorf("%s: %s has its value in the manifest", where, variable)
			}
		}
	}
	node := spec.Containers[0]
	for probe, path := range map[*corev1.Probe]string{node.StartupProbe: "/livez", node.LivenessProbe: "/livez", node.ReadinessProbe: "/readyz"} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "http" {
			t.Errorf("%s is not probed at %s: %v", name, path, probe)
		}
	}
}

// checkSelectors fails unless budgets, policies and services select the pods that they are for, and no others.
func checkSelectors(t *testing.T, r rendered) {
	t.Helper()
	for workload, selector := range r.selectors {
		if selected := r.selected(t, selector); !slices.Equal(selected, []string{workload}) {
			t.Errorf("%s selects the pods of %v", workload, selected)
		}
	}
	having := func(role string) (workloads []string) {
		for _, name := range slices.Sorted(maps.Keys(r.pods)) {
			if strings.Contains(environment(r.pods[name].Spec.Containers[0])["KAPSEL_ROLES"], role) {
				workloads = append(workloads, name)
			}
		}
		return workloads
	}
	backends := make(map[string][]string)
	for _, object := range r.objects {
		switch o := object.(type) {
		case *corev1.Service:
			selected := r.selected(t, &metav1.LabelSelector{MatchLabels: o.Spec.Selector})
			backends[o.Name] = selected
			want := having("")
			if name := strings.TrimPrefix(o.Name, "kapsel-"); name == "ingest" || name == "api" {
				want = having(name)
			} else if o.Name == "kapsel" {
				want = having("api")
			}
			if !slices.Equal(selected, want) {
				t.Errorf("service %s leads to %v: want %v", o.Name, selected, want)
			}
		case *policyv1.PodDisruptionBudget:
			if selected := r.selected(t, o.Spec.Selector); len(selected) != 1 || !strings.HasSuffix(selected[0], "/"+o.Name) {
				t.Errorf("disruption budget %s is for %v", o.Name, selected)
			}
		case *networkingv1.NetworkPolicy:
			selected := r.selected(t, &o.Spec.PodSelector)
			if len(selected) != 1 || !strings.HasSuffix(selected[0], "/"+o.Name) {
				t.Fatalf("network policy %s is for %v", o.Name, selected)
			}
			checkNetworkPolicy(t, o, environment(r.pods[selected[0]].Spec.Containers[0])["KAPSEL_ROLES"])
		case *monitoringv1.ServiceMonitor:
			checkServiceMonitor(t, r, o)
		case *monitoringv1.PrometheusRule:
			checkRules(t, o)
		}
	}
	for _, object := range r.objects {
		if ingress, ok := object.(*networkingv1.Ingress); ok {
			for _, path := range ingress.Spec.Rules[0].HTTP.Paths {
				role := "api"
				if path.Path != "/" {
					role = "ingest"
				}
				if service := path.Backend.Service.Name; len(backends[service]) == 0 || !slices.Equal(backends[service], having(role)) {
					t.Errorf("%s leads to service %s, to %v", path.Path, service, backends[service])
				}
			}
		}
	}
}

func checkNetworkPolicy(t *testing.T, o *networkingv1.NetworkPolicy, roles string) {
	t.Helper()
	serves := strings.Contains(roles, "ingest") || strings.Contains(roles, "api")
	sends := strings.Contains(roles, "deliver") || strings.Contains(roles, "api")
	rules := 1 // for metrics
	if serves {
		rules++
	}
	if len(o.Spec.Ingress) != rules || len(o.Spec.PolicyTypes) != 2 {
		t.Errorf("network policy %s, of %s, lets in %v", o.Name, roles, o.Spec.Ingress)
	}
	for _, rule := range o.Spec.Ingress {
		if len(rule.From) == 0 {
			t.Errorf("network policy %s lets everybody in", o.Name)
		}
	}
	anywhere := false
	for _, rule := range o.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil && strings.HasSuffix(peer.IPBlock.CIDR, "/0") {
				anywhere = true
				if len(peer.IPBlock.Except) == 0 {
					t.Errorf("network policy %s lets deliveries into private networks", o.Name)
				}
			}
		}
	}
	if anywhere != sends {
		t.Errorf("network policy %s, of %s: may reach destinations: %v", o.Name, roles, anywhere)
	}
}

func checkServiceMonitor(t *testing.T, r rendered, o *monitoringv1.ServiceMonitor) {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(&o.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, object := range r.objects {
		service, ok := object.(*corev1.Service)
		if !ok || !selector.Matches(labels.Set(service.Labels)) {
			continue
		}
		found = append(found, service.Name)
		if service.Labels[o.Spec.JobLabel] != "kapsel" {
			t.Errorf("metrics get the job %q: the alerts look for kapsel", service.Labels[o.Spec.JobLabel])
		}
		if !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == o.Spec.Endpoints[0].Port }) {
			t.Errorf("service %s has no port %s", service.Name, o.Spec.Endpoints[0].Port)
		}
	}
	if !slices.Equal(found, []string{"kapsel-nodes"}) {
		t.Errorf("metrics are read by way of %v", found)
	}
}

// checkRules compares the rules with the file that promtool checks and tests.
func checkRules(t *testing.T, o *monitoringv1.PrometheusRule) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/prometheus", o.Name+".yml"))
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || !reflect.DeepEqual(o.Spec, want) {
		t.Errorf("the rules of %s are not those of the file", o.Name)
	}
}

func TestChartRefusesNonsense(t *testing.T) {
	whole := needed + logKey
	for wrong, says := range map[string]string{
		whole + "publicURL: ftp://hooks.example.com\n":        "publicURL",
		whole + "publicURL: https://hooks.example.com/path\n": "publicURL",
		logKey:                  "publicURL",
		whole + "replicas: 0\n": "replicas",
		whole + "colour: red\n": "colour",
		whole + "database: {existingSecret: ''}\n":                     "existingSecret",
		whole + "database: {url: 'postgres://u:p@h/d'}\n":              "database",
		whole + "keyset: {existingSecret: My_Secret}\n":                "keyset",
		whole + "keyset: {existingSecret: keyset, kms: 'vault://x'}\n": "kms",
		needed: "set logKey.existingSecret, or logKey.urls",
		needed + "groups: {back: {roles: [deliver, seal]}}\n":                                    "set logKey.existingSecret, or logKey.urls",
		needed + "logKey: {urls: ['pkcs11:token=t;object=o?pin-value=1234']}\n":                  "urls",
		needed + "logKey: {urls: [/var/lib/log.key]}\n":                                          "urls",
		whole + "groups: {a: {roles: [sealer]}}\n":                                               "roles",
		whole + "groups: {a: {roles: []}}\n":                                                     "roles",
		whole + "groups: {a: {roles: [seal, seal]}}\n":                                           "roles",
		whole + "groups: {a: {replicas: 2}}\n":                                                   "roles",
		whole + "groups: {Edge: {roles: [seal]}}\n":                                              "Edge",
		whole + "groups: {a: {roles: [seal], image: x}}\n":                                       "image",
		whole + "resources: {limits: {memory: null}}\n":                                          "memory",
		whole + "groups: {a: {roles: [deliver], resources: {limit: {cpu: 1}}}}\n":                "limit",
		whole + "env: [{name: KAPSEL_DATABASE_URL, value: x}]\n":                                 "KAPSEL_DATABASE_URL is set by the chart",
		whole + "groups: {a: {roles: [ingest], env: [{name: KAPSEL_ROLES, value: seal}]}}\n":     "KAPSEL_ROLES is set by the chart",
		whole + "env: [{name: KAPSEL_EGRESS_PROXY, value: 'http://user:password@proxy:3128'}]\n": "has a password in it",
		whole + "env: [{name: KAPSEL_LOG_LEVEL}]\n":                                              "env",
		whole + "ingress: {enabled: true}\n":                                                     "host",
		whole + "ingress: {enabled: true, host: h}\ngroups: {a: {roles: [deliver]}}\n":           "no group has the role ingest or api",
		whole + "admin: {enabled: false}\nserviceMonitor: {enabled: true}\n":                     "set admin.enabled",
		whole + "admin: {port: 8080}\n":                                                          "admin",
		whole + "podDisruptionBudget: {maxUnavailable: 0}\n":                                     "maxUnavailable",
		whole + "networkPolicy: {blockedDestinations: [everything]}\n":                           "blockedDestinations",
		whole + "networkPolicy: {database: {ports: [0]}}\n":                                      "ports",
		whole + "graceSeconds: 0\n":                                                              "graceSeconds",
		whole + "state: {storage: much}\n":                                                       "storage",
		whole + "service: {type: ExternalName}\n":                                                "type",
	} {
		manifest, err := tryRender(t, wrong)
		if err == nil {
			t.Errorf("the chart takes\n%s and makes %d bytes", wrong, len(manifest))
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("the refusal of\n%s does not say %q: %v", wrong, says, err)
		}
	}
}

func render(t *testing.T, values string) string {
	t.Helper()
	manifest, err := tryRender(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

// tryRender renders the chart as `helm template kapsel` does. Values that come later win.
func tryRender(t *testing.T, text string) (string, error) {
	t.Helper()
	values := chartutil.Values{}
	for _, part := range documents(text) {
		more, err := chartutil.ReadValues([]byte(part))
		if err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		values = chartutil.MergeTables(more, values)
	}
	install := action.NewInstall(new(action.Configuration))
	install.ClientOnly, install.DryRun, install.ReleaseName, install.Namespace = true, true, "kapsel", "hooks"
	install.KubeVersion = &chartutil.KubeVersion{Version: "v1.31.0", Major: "1", Minor: "31"}
	release, err := install.Run(load(t), values)
	if err != nil {
		return "", err
	}
	if strings.Contains(release.Info.Notes, "<no value>") || !strings.Contains(release.Info.Notes, "/kapsel keys create") {
		t.Errorf("the notes are\n%s", release.Info.Notes)
	}
	return release.Manifest, nil
}

// documents splits values where a top-level key comes for the second time, which YAML does not allow in one.
func documents(text string) (parts []string) {
	seen, part := make(map[string]bool), ""
	for line := range strings.Lines(text) {
		if key, _, found := strings.Cut(line, ":"); found && key != "" && key[0] != ' ' {
			if seen[key] {
				parts, part, seen = append(parts, part), "", make(map[string]bool)
			}
			seen[key] = true
		}
		part += line
	}
	return append(parts, part)
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	log.SetOutput(io.Discard) // it tells of each symbolic link
	defer log.SetOutput(os.Stderr)
	loaded, err := loader.LoadDir("../../deploy/helm/kapsel")
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func decode(t *testing.T, manifest string) rendered {
	t.Helper()
	kinds := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(kinds), monitoringv1.AddToScheme(kinds)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(kinds, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest)))
	r := rendered{pods: make(map[string]*corev1.PodTemplateSpec), selectors: make(map[string]*metav1.LabelSelector)}
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		name := fmt.Sprintf("%s/%s", kind.Kind, object.(metav1.Object).GetName())
		r.names, r.objects = append(r.names, name), append(r.objects, object)
		switch o := object.(type) {
		case *appsv1.Deployment:
			r.pods[name], r.selectors[name] = &o.Spec.Template, o.Spec.Selector
		case *appsv1.StatefulSet:
			r.pods[name], r.selectors[name] = &o.Spec.Template, o.Spec.Selector
			if len(o.Spec.VolumeClaimTemplates) != 1 || o.Spec.ServiceName != "kapsel-nodes" {
				t.Errorf("%s has no volume for the high-water mark, or no service", name)
			}
		}
	}
	slices.Sort(r.names)
	return r
}

// selected are the workloads whose pods a selector selects.
func (r rendered) selected(t *testing.T, by *metav1.LabelSelector) (workloads []string) {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(r.pods)) {
		if selector.Matches(labels.Set(r.pods[name].Labels)) {
			workloads = append(workloads, name)
		}
	}
	return workloads
}

func environment(c corev1.Container) map[string]string {
	values := make(map[string]string)
	for _, variable := range c.Env {
		values[variable.Name] = variable.Value
	}
	return values
}

func mounts(c corev1.Container, path string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
}
