"""Sequence models: recurrent networks, one class for each arrow of the course's figure.

Sequences go in as a list of strings (read as characters), of lists of tokens, or of arrays of frames; each may have a
length of its own. Padding never counts.

- ``vocabulary``: tokens and their indices; errors for those that ``fit`` did not see.
"""
