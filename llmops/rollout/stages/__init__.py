"""The stages of a trial, one file each. A stage orders the work; `ops` does it."""
