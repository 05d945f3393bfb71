"""Sensors that deliver alerts and watch runs and ticks."""
