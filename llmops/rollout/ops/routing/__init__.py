"""How users reach models: the router, tenants, and the share of users that a canary gets."""
