"""A serving stack with two models, on a sandbox: `make demo-stack`."""
