"""Several results made one: methods.py and norms.py say how scores and places are joined, rankings.py joins rankings of
rank files, reranker.py mixes a re-ranker's scores in, and descriptors.py joins descriptors.

Which weights are best is tuned in evaluation/fusion_tuning.py, as that needs a ground truth.
"""
