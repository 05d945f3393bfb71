"""Where llmops measures and proves engines from: this process, a Job in the cluster, or both, suite by suite.

Stages use a `Backend` (`base`) that `choose` picks by the settings. A laptop beside a remote cluster reaches the API
server but not the engines' Services: a Job measures true latencies there, and needs no open port.
"""
