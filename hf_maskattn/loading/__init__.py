"""Models from anywhere: what they say about themselves is checked before anything is built."""
