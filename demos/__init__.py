"""Demonstrations on a sandbox: the main job, an unattended day, the whole serving stack."""
