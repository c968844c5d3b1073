"""kube-proxy's flags and configuration file."""
