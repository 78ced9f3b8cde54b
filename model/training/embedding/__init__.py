"""Vectors of the items' texts: the stage `embed`."""
