"""The same models, written the usual way in other libraries, for the benchmark."""
