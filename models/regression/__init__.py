"""The parts of ``GLM``: what a formula, a family and a prior are made of, and the answers to a user's questions.

- ``formulas`` and ``columns``: a formula with a DataFrame, or an array, becomes a matrix with named columns.
- ``families`` and ``links``: what each family takes as a response, its parameters and its mean.
- ``responses``: the response is read and checked against its family.
- ``priors``: weakly informative ones, scaled to the data, and those that users give.
- ``units``: inference runs on standardised columns; its result is brought back to the columns' own units, exactly.
- ``findings``: constant and collinear columns and separated data, by name.
- ``results``: the posterior with the names of the columns, and the summary; ``prediction`` and ``pictures``.

The Pyro programs are written in ``probdl.models.glm``.
"""
