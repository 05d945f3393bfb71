"""Users' requests to two releases, as Prometheus knows of them: what to ask, what it comes to, what follows. Pure."""
