"""The statistical elders of deep unsupervised models: what an algorithm fits to all rows at once, without networks.

- ``base``: what they share; what a model has found are buffers, so that it moves, saves and loads as networks do.
- ``k_means``: ``KMeans``.
"""
