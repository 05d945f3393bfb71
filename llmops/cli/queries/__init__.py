"""Commands that change nothing, one file each."""
