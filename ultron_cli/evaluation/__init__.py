"""How good a search is, and whether another is better.

metrics.py computes average precision and precision at k of the revisited protocols, from rankings or from scores.
evaluate.py scores a search against a ground truth.
result.py holds what comes out: the Evaluation, its scores per protocol, and its JSON file.
intervals.py says how far a mean may be off; soundness.py what makes a score worth little.
significance.py compares two evaluations, query by query; systems.py any number, with their training seeds.
reproduction.py holds one result against another; tables.py and summaries.py print all that.
expected.py holds the published scores, to stand beside a measured one.
"""
