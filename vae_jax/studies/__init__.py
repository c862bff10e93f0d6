"""One look at a trained model per file: what it measures, and the page that shows it."""
