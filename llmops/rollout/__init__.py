"""The rollout: stages, the trial they share, rollback, reaper, re-validation."""
