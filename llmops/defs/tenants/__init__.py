"""Those who use the models, and the namespaces that they have."""
