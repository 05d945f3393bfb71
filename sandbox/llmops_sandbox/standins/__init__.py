"""Stand-ins for what lies outside a cluster: hub, registry, metrics exporters, images and weights."""
