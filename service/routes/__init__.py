"""One module per resource; each translates between HTTP and the parts of `service.serving`."""
