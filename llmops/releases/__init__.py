"""Releases: their content, how a spec resolves to one, the difference between two, and the records of each."""
