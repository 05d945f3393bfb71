"""Who uses the models: one YAML file per tenant, `tenants/NAME.yaml`."""
