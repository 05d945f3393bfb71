"""What people declare: specs, and reading them from `models/` with errors that name file, line and field."""
