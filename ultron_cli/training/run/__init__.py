"""The folder of a training run: folder.py names and lists them, checkpoints.py saves and takes up a run's whole state,
journal.py keeps its figures, tensorboard.py writes them as events, stopping.py hears the signal to stop."""
