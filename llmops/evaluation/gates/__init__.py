"""Gates: from figures to a verdict. Pure."""
