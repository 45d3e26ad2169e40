"""What happens inside a network: stages.py finds its stages, matching.py matches places of two photos (draw.py those of
a stored search), windows.py shows SCALA's windows, dilations.py CDConv's dilations, photos.py opens photos to show."""
