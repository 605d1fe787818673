"""Cluster analysis: which rows belong together.

- ``k_means``: ``KMeans``, centres by Lloyd's algorithm.
"""
