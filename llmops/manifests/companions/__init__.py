"""What surrounds a model's engines: exposure, autoscaling, monitoring, network policies. Pure."""
