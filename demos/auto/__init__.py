"""An unattended day in fast motion, on the sandbox: llmops starts every rollout by itself."""
