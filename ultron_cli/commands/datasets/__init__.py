"""`ultron datasets ...`: what is known and there, getting it, checking it, making one's own."""

SUMMARY = "Photos and their ground truth."
