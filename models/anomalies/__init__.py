"""Anomalies: rows that are unlike the others, found by several methods on one scale.

- ``table``: ``anomaly_table``, scores, ranks, conformal p-values and flags of each row by each method.
- ``anomalies``: ``Anomalies``, its result: the table, thresholds, agreement, and ROC where labels exist.
- ``plans``: which rows fit, which calibrate and which are judged, so that no row judges itself.
- ``scores``: the methods, and the score that a model gives a row.
- ``conformal``: p-values and thresholds that hold whatever the score, and the false discovery rate.
- ``roc``: ROC curves, the areas below them and average precision, with standard errors.
- ``pictures``: ROC curves, or p-values against the uniform law.
"""
