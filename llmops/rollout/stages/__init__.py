"""The seven stages, one file each, as Dagster assets: they order the work, and leave it to the parts below."""
