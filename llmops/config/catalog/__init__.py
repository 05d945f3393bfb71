"""The catalog: the models' entries in `models/`, and their loader."""
