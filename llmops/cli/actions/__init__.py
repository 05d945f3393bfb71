"""Commands that change something or stay, one file each."""
