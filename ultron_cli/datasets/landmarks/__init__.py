"""Training photos by landmark.

photos.py opens a folder of them in any of its forms: one folder per landmark, a landmark list (lists.py) or CIFAR
(cifar.py). path_table.py keeps millions of paths in little memory, aspects.py knows the photos' shapes,
exclusions.py reads what is to be left out, split.py holds photos out.
"""
