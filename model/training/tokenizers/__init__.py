"""Ways to give an item its codes, interchangeable behind one interface."""
