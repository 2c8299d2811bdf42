"""Short stories with questions."""
