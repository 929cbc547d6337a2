"""What people look at: text tables, files."""
