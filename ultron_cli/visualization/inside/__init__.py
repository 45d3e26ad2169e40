"""What happens inside a network: stages.py finds its stages, matching.py matches places of two photos, windows.py shows
SCALA's windows, dilations.py CDConv's dilations, photos.py opens the photos to show."""
