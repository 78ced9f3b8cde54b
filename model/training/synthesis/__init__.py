"""A web shop that does not exist, with a known best answer: the stage `synthesize`."""
