"""Reports of an evaluation: Markdown, plots, and one HTML page."""
