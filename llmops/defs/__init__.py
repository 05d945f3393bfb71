"""Dagster definitions, by topic: assets, jobs, sensors, schedules, and what they share."""
