"""Stories with questions and answers."""
