r"""
Anomalies without labels: tumours that are unlike benign ones
=============================================================

From the measurements of benign tumours alone, which others are strange? Six methods learn what is usual: densities (a
kernel estimate, a mixture of normals, a variational autoencoder) score a row by −log p(x), projections (principal
components, an autoencoder) by its squared distance from its reconstruction, an isolation forest by how few random cuts
set it apart. Their scores have nothing in common but their direction. *Conformal p-values* give them one scale: half of
the benign rows for training fit the models, the other half calibrate, and

.. math:: p = \frac{1 + \#\{\text{calibration scores} \ge s\}}{n + 1}

is the share of benign tumours that would be as strange. A row with p ≤ 5 % is flagged, and of new benign tumours at
most 5 % are, whichever method: that holds if they are exchangeable with those for training. How many malignant ones are
detected is another question, and the methods' own.
"""

# %%
# 569 biopsies, 30 measurements each. 238 benign ones train; the other 119 benign and all 212 malignant are judged.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probdl import data, viz
from probdl.models import anomaly_table

X, y = data.breast_cancer(as_frame=True)
order = np.random.default_rng(0).permutation(np.flatnonzero(y == 1))
train, judged = X.iloc[order[:238]], pd.concat([X.iloc[order[238:]], X[y == 0]])
malignant = y[judged.index] == 0

found = anomaly_table(judged, train=train, labels=malignant, rate=0.05, fdr=0.1)
print(found)
print(found.thresholds.round(3).to_string())

# %%
# The ten rows that the methods together find strangest, by the mean of their ranks, and whether they are malignant.

ranks = found.table.xs("rank", axis=1, level=1)
strangest = ranks.loc[ranks.mean(axis=1).nsmallest(10).index]
print(strangest.assign(malignant=malignant[strangest.index]).to_string())
print(found.agreement.round(2).to_string())

# %%
# ROC curves: what is detected, whatever threshold is chosen, with a mark at the conformal one. The labels serve for
# this judgement alone. No method knows what makes a tumour malignant; that they find so many means that malignant
# tumours lie outside of where benign ones are.

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
found.plot(left)
left.set(title="Malignant against held-out benign tumours, left part", xlim=(-0.01, 0.4))

n, benign = int(found.thresholds.calibration_rows.iloc[0]), int((~malignant).sum())
most = int(0.05 * (n + 1))
law = stats.betabinom(benign, most, n + 1 - most)
low, high = law.ppf([0.025, 0.975]) / benign
shares = found.auc.false_alarms
viz.intervals(list(shares.index), shares, shares, shares, ax=right, label="realised", offset=-0.12)
middle = pd.Series(law.mean() / benign, index=shares.index)
viz.intervals(
    list(shares.index), middle, middle * 0 + low, middle * 0 + high, ax=right, label="law (95 %)", offset=0.12
)
right.set_xlabel("share flagged among 119 held-out benign tumours")
plt.show()

# %%
# **The known answer beside ours.** Asked were 5 % of false alarms. The number among 119 benign rows has a known law,
# beta-binomial, since both the rows that calibrate and those that are judged are few; the interval is its own, for each
# method alone. The methods share the rows, so that they err together.

print(f"law of the share of false alarms: mean {law.mean() / benign:.3f}, 95 % from {low:.3f} to {high:.3f}")
table = found.auc
print(
    pd.DataFrame(
        {
            "false alarms": shares.map("{:.1%}".format),
            "within": (shares >= low) & (shares <= high),
            "detected": [f"{v:.1%} ± {e:.1%}" for v, e in zip(table.detected, table.detected_stderr)],
            "area": [f"{v:.3f} ± {e:.3f}" for v, e in zip(table.auc, table.auc_stderr)],
            "average precision": [
                f"{v:.3f} ± {e:.3f}" for v, e in zip(table.average_precision, table.average_precision_stderr)
            ],
        }
    ).to_string()
)

# %%
# The ceiling: a logistic regression that is given the labels, in cross-validation, at the threshold that the same
# number of benign rows exceed.

classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
odds = cross_val_predict(classifier, X, y == 0, cv=5, method="decision_function")
limit = np.quantile(odds[y == 1], 0.95)
print(f"with labels: {np.mean(odds[y == 0] > limit):.1%} of malignant tumours detected at 5 % of false alarms")

# %%
# With many rows to judge, 5 % of the normal ones are many false alarms. The rule of Benjamini and Hochberg bounds
# another share instead, that of normal rows among all that are reported: here at most 10 % on average.

reported = found.table.xs("discovery", axis=1, level=1)
benign_among = (reported & ~malignant.to_numpy()[:, None]).sum() / reported.sum()
print(pd.DataFrame({"reported": reported.sum(), "of them benign": benign_among.map("{:.1%}".format)}).to_string())
