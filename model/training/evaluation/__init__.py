"""How good a bundle is, measured through the code that serves it: the stage `evaluate`."""
