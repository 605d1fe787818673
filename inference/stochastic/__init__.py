"""The evidence lower bound on minibatches.

- ``minibatches``, ``row_plates``, ``streams``: where rows come from. ``batch_density``: the density on a batch of them.
- ``global_fit`` (with ``curvature``, ``stochastic_steps``, ``stochastic_loop``, ``averaging``, ``diagonal``): latents
  that all rows share.
- ``amortised``, ``amortised_posterior``, ``guides``, ``network_guide``, ``network_loop``, ``pyro_guide``: latents of
  rows, by a network or a Pyro guide. ``parameters``: those of the model.
"""
