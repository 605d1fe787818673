"""Rows of many columns in few dimensions, by the classical ways, and how much a picture keeps.

- ``pca``: ``PCA``, principal components and the normal density around them; ``spectrum``: eigenvalues, their standard
  errors, axes with fixed signs.
- ``mds``: ``MDS``, points whose distances are those given; ``distances``: what can be one.
- ``som``: ``SOM``, a sheet of units laid through the rows; ``grids``: who is whose neighbour on the sheet.
- ``compare``: ``embed_compare``, several embeddings of the same rows beside each other; ``pictures``: their panels.
- ``quality``: trustworthiness, continuity, stress and agreement of labels, each with its standard error.
"""
