"""Looking into models: whether padding leaks, where attention goes."""
