"""Releases: what they are, how a spec becomes one, what differs between two, and what is known of each."""
