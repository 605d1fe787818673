"""Models of sequences by recurrent networks, one for each arrow of the course's figure.

Sequences go in as a list of strings (read as characters, or as words), of lists of tokens, or of arrays of frames
(vectors, images); each may have a length of its own. Padding never counts: it is masked by lengths, and has no token.

- ``SequenceClassifier``: many to one, a sequence and its label.
- ``SequenceTagger``: many to many without lag, a label for each step.
- ``LanguageModel``: the distribution of a text, token after token.
- ``Seq2Seq``: many to many with lag, a sequence read and another one written.
- ``Captioner``: one to many, an image and a sequence about it.
- ``SequenceVAE``: a code for each sequence, from which another network writes it.

Their parts: ``vocabulary`` (tokens and their indices; errors for those that ``fit`` did not see), ``frames`` (sequences
of vectors or images), ``reader`` (sequences through a recurrent network), ``saliency`` (how much a score changes with
each step), ``labelled`` (what classifier and tagger share), ``texts`` and ``streams`` (which part of a text trains, and
texts in windows), ``blocks`` (errors of means over dependent tokens); ``decoder``, ``search`` and ``writer`` (sequences
that are written); ``rows``, ``heads`` and ``coded`` (sequences as rows of one tensor, their distributions given a code,
and how both are learnt).
"""
