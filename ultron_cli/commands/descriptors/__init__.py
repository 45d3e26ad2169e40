"""`ultron descriptors ...`: what descriptor files hold, and descriptors from and for other tools."""

SUMMARY = "Descriptors from and for other tools."
