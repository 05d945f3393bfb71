"""A second actor's storm: in each rollout somebody else changes something at a random moment."""
