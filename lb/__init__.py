"""The control plane: from Kubernetes objects to the contents of the kernel's maps."""

__version__ = "0.1.0"
KUBERNETES = "1.36"
"""The version of Kubernetes whose kube-proxy is followed."""
