"""`ultron ranks ...`: what a rank file holds, and rankings for and from other tools."""

SUMMARY = "Rankings for and from other tools."
