"""Datasets: from a name or a folder to photos, and to what is known of them.

photos.py decodes photos and groups them into batches. protocols.py reads ground truths. folder.py opens a dataset
folder, named.py a dataset by name. verify.py looks for bad photos, which bad_photos.py lists. build_gnd.py makes a
dataset of the user's own photos; label_tables.py reads the CSV files that describe them.
overview.py tells what is known and present.

download/ brings the published datasets, landmarks/ lists training photos by landmark, toy/ renders made-up landmarks.
"""
