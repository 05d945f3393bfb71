"""Gates on users' requests: what to ask Prometheus of both releases, and the verdict from its answers. Pure."""
