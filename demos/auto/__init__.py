"""An unattended day in fast motion, on the sandbox: nobody starts a rollout, and every one is the right one."""
