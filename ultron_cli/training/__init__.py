"""Training: from photos by landmark to a checkpoint.

start.py begins or resumes a run, loop.py leads it (run/loop.py has what it shares with AutoLA), learner.py takes a
step, with a loss of losses/ and an optimiser of optimisers.py. config.py has the settings, presets/ the published ones.
batches/ chooses and loads photos, validation.py and validation_classes.py score what was held out, starting_weights.py
begins from another run's. run/ is a run's folder on disk, environment.py what it says of the machine. autola/ searches
an attention.
"""
