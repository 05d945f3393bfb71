"""Whether a model fits into its GPUs: weights, activations, and the rest for the KV cache."""
