"""How good a search is, and whether another is better.

metrics/ computes average precision and precision at k of the revisited protocols, from rankings or from scores, and
holds further metrics by name (METRICS).
evaluate.py scores a search against a ground truth.
result.py holds what comes out: the Evaluation, its scores per protocol, and its JSON file.
intervals.py says how far a mean may be off; soundness.py what makes a score worth little.
significance.py compares two evaluations, query by query; systems.py any number, with their training seeds.
reproduction.py holds one result against another; tables.py and summaries.py print all that.
explanation.py says where a score is lost: slices.py, by what attributes.py knows of queries and photos, and ceilings.py.
landmarks.py tells the landmarks of a ground truth. predictions.py reads submissions to GLDv2's challenges.
expected.py holds the published scores, to stand beside a measured one.
"""
