"""Looking into models: where attention goes."""
