"""Training of a head on stored descriptors (models/heads.py) by the run loop that trains networks on photos.

described.py opens the descriptors with their landmarks, run.py is the training, as_whitening.py writes a linear head
in the form that searches take.
"""
