"""Local features of photos, and what pairs of them say: matches, and a geometry that explains them."""
