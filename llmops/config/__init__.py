"""What people declare, and how it is read: the catalog, tenants, settings."""
