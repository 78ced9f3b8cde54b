"""Check, count and split what people bring: the stage `prepare`."""
