"""The control plane, on tables in memory."""
