"""End-to-end sequence applications: train, evaluate, predict, export."""
