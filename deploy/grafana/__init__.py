"""The Grafana dashboard over Tidegate's metrics, written by `python -m deploy.grafana`."""
