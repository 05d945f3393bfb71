"""The only code that talks to Kubernetes: apply, watch, wait, diagnose, logs, endpoints, leases."""
