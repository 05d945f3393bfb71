"""The whole serving stack around two models, on a sandbox: `make demo-stack`."""
