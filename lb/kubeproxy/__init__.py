"""kube-proxy's command line and configuration file, read into Tidegate's settings.

Pure: text and flag values in, frozen values, warnings and faults out. Follows kube-proxy of
Kubernetes 1.36 (`cmd/kube-proxy/app/options.go`, `pkg/proxy/apis/config`, and the v1alpha1 types of
`k8s.io/kube-proxy`). Not for click, which is `lb.agent_command`'s, and not for acting on anything.
"""
