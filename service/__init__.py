"""The online half: HTTP recommendations from a bundle."""
