"""Re-validation of what serves: is it still what was promoted, and as good? One check per module."""
