"""The programs in C, and the Python that knows the kernel; it knows nothing of Kubernetes."""
