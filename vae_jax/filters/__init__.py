"""Activation maximisation: input patterns that drive the feature maps of a layer."""
