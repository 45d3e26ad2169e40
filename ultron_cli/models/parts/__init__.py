"""What the models are built from: poolings, ULTRON's CDConv and SCALA, and small layers."""
