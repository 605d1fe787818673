r"""
Logistic regression by formula, against maximum likelihood and NUTS
===================================================================

In 1974 the magazine Redbook asked its readers about their marriages, and 6366 of them answered; Ray Fair (1978)
analysed who reported an extramarital affair. A logistic regression has

.. math:: \log\frac{P(y_i = 1)}{P(y_i = 0)} = α + x_i^\top β.

The maximum-likelihood table gives estimates and standard errors, which are the posterior's mean and sd where data are
many. The posterior is the whole answer: expectation propagation finds it in about the time of the table, with the
evidence, and where data are few it says what the table cannot.
"""

# %%
# The formula is read as in R: ``C()`` makes categories of the five answers to "how do you rate your marriage?", and
# ``C(…, contr.treatment(base=5))`` compares them to the best of them.

import os
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf

from probdl.inference import NUTS
from probdl.models import GLM

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the draws

data = sm.datasets.fair.load_pandas().data
data = data.assign(affair=(data.affairs > 0).astype(int), rating=data.rate_marriage.astype(int))
terms = "C(rating, contr.treatment(base=5)) + age + yrs_married + religious + educ"

started = time.perf_counter()
glm = GLM(f"affair ~ {terms}", data, family="bernoulli").fit()
print(f"{glm.posterior.method}: {time.perf_counter() - started:.2f} s\n")
print(glm.summary())

# %%
# **Left:** the coefficients for one standard deviation of each column, so that they compare. **Right:** the probability
# along the years of marriage, for the median reader. Intervals hold 90 % of the posterior.


def short(name):
    """Return "rating 1" for the long name that a formula gives."""
    return f"rating {name.split('[T.')[1][0]}" if name.startswith("C(") else name


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(3, 2))
glm.plot(standardised=True, ax=left)
left.set_yticks(left.get_yticks(), [short(name) for name in glm.names])
glm.plot("yrs_married", ax=right)
right.set(xlabel="years married", ylabel="probability of an affair", ylim=(0, None))
plt.show()

# %%
# What follows for a reader whom the data have not seen: the interval of the probability, not only its estimate.

new = pd.DataFrame(
    {"rating": [1, 3, 5], "age": 35.0, "yrs_married": 12.0, "religious": 2.0, "educ": 14.0},
    index=["very poor", "fair", "very good"],
)
print(glm.predict(new)[["mean", "lower", "upper"]].round(3))

# %%
# Does the rating belong in the model? The evidence of the model without it, in nats.

without = GLM("affair ~ age + yrs_married + religious + educ", data, family="bernoulli").fit()
gain = glm.log_evidence.value - without.log_evidence.value
print(
    f"log evidence {glm.log_evidence.value:.2f} with the rating, {without.log_evidence.value:.2f} without: {gain:+.1f}"
)

# %%
# With few data the posterior is not the estimate with its standard error. Spector and Mazzeo (1980) had 32 students,
# half of them in a new teaching programme (PSI). The posterior is skewed; EP matches its mean and sd, while the mode,
# where maximum likelihood and Laplace's method look, lies elsewhere.

students = sm.datasets.spector.load_pandas().data
few = GLM("GRADE ~ GPA + TUCE + PSI", students, family="bernoulli").fit()
laplace = GLM("GRADE ~ GPA + TUCE + PSI", students, family="bernoulli").fit(method="laplace")
nuts_method = NUTS(draws=1500 // SHARE, warmup=500 // SHARE, chains=2)
sampled = GLM("GRADE ~ GPA + TUCE + PSI", students, family="bernoulli").fit(method=nuts_method)
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for fitted, label in ((sampled, "NUTS"), (few, "expectation propagation"), (laplace, "laplace")):
    fitted.plot(standardised=True, ax=ax, label=label)
ax.set_title("32 students", loc="right")
plt.show()

# %%
# **The known answer beside ours.** On 6366 rows, statsmodels' maximum likelihood; on 32, NUTS. Differences are in
# standard errors or posterior sds. The prior, as wide as it is, draws the few towards zero.

likelihood = smf.logit("affair ~ C(rating, Treatment(reference=5)) + age + yrs_married + religious + educ", data).fit(
    disp=0
)
ours = glm.summary().table
table = pd.DataFrame(
    {"mean": ours["mean"], "estimate": likelihood.params.to_numpy(), "sd": ours["sd"], "se": likelihood.bse.to_numpy()}
).rename(index=short)
table["difference"] = (table["mean"] - table["estimate"]) / table["se"]
print(table.round(3).to_string())
print("\n32 students")
few_ml = smf.logit("GRADE ~ GPA + TUCE + PSI", students).fit(disp=0)
ep, mode, nuts = (fitted.summary().table for fitted in (few, laplace, sampled))
table = pd.DataFrame(
    {"EP mean": ep["mean"], "NUTS mean": nuts["mean"], "Laplace": mode["mean"], "estimate": few_ml.params.to_numpy(),
     "EP sd": ep["sd"], "NUTS sd": nuts["sd"]}
)  # fmt: skip
print(table.round(3).to_string())
errors = [np.abs((t["mean"] - nuts["mean"]) / nuts["sd"]).max() for t in (ep, mode)]
print(f"largest difference of a mean from that of NUTS: EP {errors[0]:.2f} sd, Laplace {errors[1]:.2f} sd")
