"""What happens without anybody asking: sensors, schedules, alerts, and the reaper."""
