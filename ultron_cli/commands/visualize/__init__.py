"""`ultron visualize ...`: pictures of what a model does. searches.py opens the searches that several of them draw."""

SUMMARY = "Pictures of what a model does."
