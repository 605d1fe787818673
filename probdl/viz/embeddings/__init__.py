"""Rows of many columns as points of a plane or of space.

- ``tsne``: neighbours beside neighbours, over all pairs; ``affinities``: the probabilities to keep; ``similarity``:
  those of the picture, and what is lost.
- ``many_rows``: the same by openTSNE where there are too many pairs.
- ``tsne_layers``: one picture for each layer of a network.
- ``drawings``: ``embedding`` and ``layer_panel``.
"""
