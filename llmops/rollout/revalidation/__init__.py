"""Re-validation: check that the stable release still runs as promoted, with the same quality. One module per check."""
