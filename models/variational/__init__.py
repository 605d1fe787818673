"""The variational autoencoder and its parts.

- ``vae``: the class with its arguments; ``answers``: what a fitted one answers; ``latent_rows``: what is found in the
  data, built, trained and drawn.
- ``layout``: which entries of a row share a likelihood; ``likelihoods`` chooses it, ``support`` says what each of them
  takes; ``decoders`` and ``encoders``: the families around the
  networks; ``objective``: what is minimised.
- ``imputation``, ``activity``, ``program``: missing entries, active latent dimensions, the trained model in Pyro.

The bound and the importance weights are in ``probdl.models.elbo``, which other models with latent variables share.
"""
