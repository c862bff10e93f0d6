"""Priors fitted after training: densities of latent points that images are decoded from."""
