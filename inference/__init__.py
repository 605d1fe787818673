"""A Pyro model in, a Posterior out."""
