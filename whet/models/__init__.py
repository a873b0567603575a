"""Building the tiny base model, and the base model itself."""
