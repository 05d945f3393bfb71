"""The weekly cost review: assets and schedule."""
