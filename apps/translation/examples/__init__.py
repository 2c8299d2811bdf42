"""Scripts that query an export."""
