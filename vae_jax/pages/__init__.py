"""Pages of trained models: what is computed for each of them, handed to `report` to draw."""
