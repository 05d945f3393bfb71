"""Sensors that start rollouts."""
