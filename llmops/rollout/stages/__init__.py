"""The stages, one file each: they order the work, and leave it to the parts below."""
