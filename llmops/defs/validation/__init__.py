"""Re-validation of what serves: assets, job and schedules."""
