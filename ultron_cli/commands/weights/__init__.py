"""`ultron weights ...`: what is in a weights file, which models there are, and authors' checkpoints as ours."""

SUMMARY = "Weight files."
