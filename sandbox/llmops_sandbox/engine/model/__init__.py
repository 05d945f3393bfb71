"""The simulated model: its answers, its vocabulary, and how likely it finds a token."""
