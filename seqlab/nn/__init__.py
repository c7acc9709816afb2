"""Layers: plain torch modules that know tensors only."""
