"""Small original corpora (CC0), so that every first run works offline."""
