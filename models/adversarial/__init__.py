"""Models that make rows of noise, x = G(z), and have no density: what they learn from is a divergence between draws.

- ``gan``: ``GAN``; a discriminator bounds an f-divergence. ``f_losses`` has the losses of its two players.
- ``wgan``: ``WGAN``; a critic with bounded slopes bounds W1. ``slopes`` values it on held-out rows.
- ``matching``: ``GMMN`` and ``SlicedWassersteinGenerator``, which need no second player: the divergence of two batches
  is itself the loss.

What they stand on: ``implicit`` (a generator, and what every model without a density does alike), ``duelling`` (the
same with a critic, who duels by ``rules``), ``generator`` and ``critic`` (a network with its condition beside the row),
``trace`` (what is seen of held-out rows at each record of a duel, and which state it speaks for).
"""
