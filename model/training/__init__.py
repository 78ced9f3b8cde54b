"""The offline half: from catalogue and events to a bundle. The only code that imports torch."""
