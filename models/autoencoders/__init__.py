r"""Autoencoders: :math:`z = f(x)`, and back, :math:`\hat x = g(z)`, without a distribution.

- ``linear``: ``LinearAutoencoder``, which finds the principal components.
- ``deep``: ``Autoencoder``; ``tied`` shares the weights of its encoder and decoder.
- ``sparse``: ``SparseAutoencoder``; a penalty keeps most entries of a code small.
- ``k_sparse``: ``KSparseAutoencoder``; all but the k largest entries of a code are zero.
- ``denoising``: ``DenoisingAutoencoder``; it undoes the noise of ``corruption``.

What they stand on: ``base`` (an encoder, a decoder, the loss, scores of anomaly) and ``codes`` (what has a code and no
distribution).
"""
