"""Tells whether the cluster can take a release before llmops creates anything; each finding has its remedy."""
