"""What several stages do to the cluster."""
