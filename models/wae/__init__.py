r"""Wasserstein autoencoders: the primal of the Wasserstein distance between the data and a generator's samples.

.. math:: \min_{G} \inf_{q(z|x):\, q(z) = p(z)} E\,c(x, G(z)) \quad\text{is replaced by}\quad
          \min_{G, q} E\,c(x, G(z)) + λ D(q(z), p(z)).

- ``wae_mmd``: ``WAEMMD``; the penalty D is a squared maximum mean discrepancy.
- ``wae_gan``: ``WAEGAN``; the penalty is a Jensen–Shannon divergence, as a critic of codes sees it.

What they stand on: ``base`` (the objective, encoders, samples), ``costs`` (c), ``kernel`` (of the MMD) and ``moments``
(where the encoder starts).
"""
