"""The only code that calls the Kubernetes API: apply, watch, wait, diagnose, logs, endpoints, leases."""
