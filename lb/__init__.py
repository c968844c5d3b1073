"""The control plane: from Kubernetes objects to the contents of the kernel's maps."""

__version__ = "0.1.0"
KUBERNETES = "1.36"
"""The version of Kubernetes whose kube-proxy is followed."""
GIT_VERSION = f"v{KUBERNETES}.0+tidegate-{__version__}"
"""As Kubernetes' own programs tell theirs; behind the plus stands whose it is (semver.org, 10)."""
