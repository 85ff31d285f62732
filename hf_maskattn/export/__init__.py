"""What leaves the house: model cards."""
