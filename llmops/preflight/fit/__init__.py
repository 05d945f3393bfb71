"""Whether a model fits into its GPUs: weights, what a forward pass takes, and the KV cache that is left over."""
