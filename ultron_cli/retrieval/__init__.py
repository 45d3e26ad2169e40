"""Retrieval: from photos to descriptors, and from descriptors to a ranking.

extraction/ computes descriptors; descriptors.py holds them (in a file or in memory), joined.py reads several files as
one, whitening.py turns them (whitening_learning.py learns how). searching.py leads a search: exactly (exact/), by an
index (index/, milvus/), and re-ranked (rerank/). rankings.py holds what comes out, origin.py what made it. hdf5.py
opens every HDF5 file.
"""
