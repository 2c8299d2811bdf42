"""Images with captions, or with questions and answers."""
