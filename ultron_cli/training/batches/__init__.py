"""Which photos a step of training takes, and how they become a batch.

draws.py and tuples.py choose rows (tuples: anchor, positive, negatives; hard.py finds the hard ones), photos.py decodes
and augments them.
"""
