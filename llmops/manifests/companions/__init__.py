"""Objects around a model's engines: exposure, autoscaling, monitoring, network policies. Pure."""
