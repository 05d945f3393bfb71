"""What runs a suite against an engine: quality cases, load profiles, evaluation tools."""
