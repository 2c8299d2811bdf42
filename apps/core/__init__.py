"""What all apps share: the protocol, runs, training, evaluation, export and the command line."""
