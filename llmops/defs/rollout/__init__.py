"""The rollout: one asset per stage, and the job that runs them."""
