"""Photos and ground truth: reading, cropping, batching, and the rendered landmarks."""
