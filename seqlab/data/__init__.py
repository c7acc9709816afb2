"""Corpora to batches: sources, formats, sampling and the LightningDataModules."""
