"""Where engines are measured and proven from: this process, a Job inside the cluster, or both, suite by suite.

Stages ask through a `Backend` (`base`) that `choose` picks by the settings. A laptop beside a remote cluster reaches
the API server, and not the engines' Services; there a Job gives true latencies, and no port has to be opened.
"""
