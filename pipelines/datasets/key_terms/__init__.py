"""Documents with their key terms."""
