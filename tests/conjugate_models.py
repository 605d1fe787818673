"""Conjugate Pyro programs as users would write them, and their mean-field updates derived by hand in NumPy."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import digamma, logsumexp


def normal(y):
    mu = pyro.sample("mu", dist.Normal(1.0, 3.0))
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.5))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)


def normal_by_hand(y, sweeps=200):
    n, e_tau = len(y), 2 / 1.5
    for _ in range(sweeps):
        v = 1 / (1 / 9 + n * e_tau)
        m = v * (1 / 9 + e_tau * y.sum())
        a, b = 2 + n / 2, 1.5 + 0.5 * (((y - m) ** 2).sum() + n * v)
        e_tau = a / b
    return m, v, a, b


def hierarchical(y):
    """Groups in columns: their means around a common one, both spreads unknown."""
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    between = pyro.sample("between", dist.Gamma(1.0, 1.0))
    within = pyro.sample("within", dist.Gamma(1.0, 2.0))
    with pyro.plate("groups", y.shape[1], dim=-1):
        theta = pyro.sample("theta", dist.Normal(mu, between.rsqrt()))
        with pyro.plate("rows", y.shape[0], dim=-2):
            pyro.sample("y", dist.Normal(theta, within.rsqrt()), obs=y)


def hierarchical_by_hand(y, sweeps=300):
    """One joint Gaussian of all means and mu, as they are connected; Gamma factors of the precisions."""
    n, g = y.shape
    e_b, e_w = 1.0, 0.5
    for _ in range(sweeps):
        precision = np.zeros((g + 1, g + 1))
        precision[:g, :g] = (n * e_w + e_b) * np.eye(g)
        precision[:g, g] = precision[g, :g] = -e_b
        precision[g, g] = g * e_b + 0.01
        covariance = np.linalg.inv(precision)
        mean = covariance @ np.append(e_w * y.sum(0), 0.0)
        d = mean[:g] - mean[g]
        spread = covariance.diagonal()[:g] + covariance[g, g] - 2 * covariance[:g, g]
        a_b, b_b = 1 + g / 2, 1 + 0.5 * (d**2 + spread).sum()
        a_w, b_w = 1 + n * g / 2, 2 + 0.5 * (((y - mean[:g]) ** 2).sum() + n * covariance.diagonal()[:g].sum())
        e_b, e_w = a_b / b_b, a_w / b_w
    return mean, covariance, (a_b, b_b), (a_w, b_w)


def regression(X, y):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    variance = pyro.sample("variance", dist.InverseGamma(3.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(X @ w + b, variance.sqrt()), obs=y)


def regression_by_hand(X, y, sweeps=200):
    Z = np.column_stack([np.ones(len(y)), X])
    prior, e_tau = np.diag([0.01] + [0.25] * X.shape[1]), 1.0
    for _ in range(sweeps):
        covariance = np.linalg.inv(prior + e_tau * Z.T @ Z)
        mean = e_tau * covariance @ Z.T @ y
        a = 3 + len(y) / 2
        b = 2 + 0.5 * (((y - Z @ mean) ** 2).sum() + np.trace(Z.T @ Z @ covariance))
        e_tau = a / b
    return mean, covariance, a, b


def mixture(x, k):
    """Diagonal precisions."""
    d = x.shape[1]
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((k,), 2.0)))
    with pyro.plate("components", k):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(d), 5.0).to_event(1))
        tau = pyro.sample("tau", dist.Gamma(torch.full((d,), 2.0), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(mu[z], tau[z] ** -0.5).to_event(1), obs=x)


def mixture_by_hand(x, r, sweeps=300):
    k, d = r.shape[1], x.shape[1]
    e_tau = np.full((k, d), 2.0)
    for _ in range(sweeps):
        n = r.sum(0)
        alpha = 2 + n
        v = 1 / (1 / 25 + n[:, None] * e_tau)
        m = v * e_tau * (r.T @ x)
        a = 2 + n[:, None] / 2 + np.zeros((k, d))
        b = 1 + 0.5 * (r.T @ x**2 - 2 * m * (r.T @ x) + n[:, None] * (m**2 + v))
        e_tau, e_log = a / b, digamma(a) - np.log(b)
        squares = (x[:, None] - m) ** 2 + v
        log_r = digamma(alpha) - digamma(alpha.sum()) + 0.5 * (e_log - e_tau * squares - np.log(2 * np.pi)).sum(2)
        r = np.exp(log_r - logsumexp(log_r, axis=1, keepdims=True))
    return alpha, m, v, a, b, r


def full_mixture(x, k):
    """Full precisions, with Wishart priors."""
    d = x.shape[1]
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((k,), 2.0)))
    with pyro.plate("components", k):
        mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(d), precision_matrix=0.04 * torch.eye(d)))
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(d + 2.0), covariance_matrix=torch.eye(d)))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=precision[z]), obs=x)


def full_mixture_by_hand(x, r, sweeps=300):
    k, d = r.shape[1], x.shape[1]
    e_p = np.stack([(d + 2.0) * np.eye(d)] * k)
    for _ in range(sweeps):
        n = r.sum(0)
        alpha = 2 + n
        v = np.linalg.inv(0.04 * np.eye(d) + n[:, None, None] * e_p)
        m = np.einsum("kij,kjl,kl->ki", v, e_p, r.T @ x)
        df = d + 2 + n
        gap = x[:, None] - m
        scatter = np.einsum("nk,nki,nkj->kij", r, gap, gap) + n[:, None, None] * v
        scale = np.linalg.inv(np.eye(d) + scatter)
        e_p = df[:, None, None] * scale
        e_log = digamma((df[:, None] - np.arange(d)) / 2).sum(1) + d * np.log(2) + np.linalg.slogdet(scale)[1]
        quadratic = np.einsum("nki,kij,nkj->nk", gap, e_p, gap) + np.einsum("kij,kji->k", e_p, v)
        log_r = digamma(alpha) - digamma(alpha.sum()) + 0.5 * (e_log - quadratic - d * np.log(2 * np.pi))
        r = np.exp(log_r - logsumexp(log_r, axis=1, keepdims=True))
    return alpha, m, v, df, scale, r


def factor_analysis(x, k):
    n, d = x.shape
    tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("variables", d):
        w = pyro.sample("w", dist.Normal(torch.zeros(k), 1.0).to_event(1))
    with pyro.plate("rows", n):
        z = pyro.sample("z", dist.Normal(torch.zeros(k), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ w.T, tau**-0.5).to_event(1), obs=x)


def factor_analysis_by_hand(x, z, sweeps):
    """From E z = z with variance 1/100: one sweep updates tau, w, z in turn."""
    n, d = x.shape
    k = z.shape[1]
    zz = np.stack([np.outer(row, row) for row in z]) + 0.01 * np.eye(k)
    w, ww = np.zeros((d, k)), np.stack([np.eye(k)] * d)
    for _ in range(sweeps):
        expected = np.einsum("dij,nij->", ww, zz) - 2 * (x * (z @ w.T)).sum() + (x**2).sum()
        a, b = 1 + n * d / 2, 1 + 0.5 * expected
        e_tau = a / b
        v_w = np.linalg.inv(np.eye(k) + e_tau * zz.sum(0))
        w = e_tau * (x.T @ z) @ v_w
        ww = v_w + w[:, :, None] * w[:, None, :]
        v_z = np.linalg.inv(np.eye(k) + e_tau * ww.sum(0))
        z = e_tau * (x @ w) @ v_z
        zz = v_z + z[:, :, None] * z[:, None, :]
    return a, b, w, v_w, z, v_z


def topics(words, k, vocabulary):
    """Latent Dirichlet allocation: documents in rows."""
    documents, length = words.shape
    phi = pyro.sample("phi", dist.Dirichlet(torch.full((k, vocabulary), 0.5)).to_event(1))
    with pyro.plate("documents", documents, dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((k,), 0.7)))
        with pyro.plate("words", length, dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(phi[z]), obs=words)


def topics_by_hand(words, r, vocabulary, sweeps):
    one_hot = np.eye(vocabulary)[words]
    for _ in range(sweeps):
        beta = 0.5 + np.einsum("dnk,dnv->kv", r, one_hot)
        gamma = 0.7 + r.sum(1)
        e_phi = digamma(beta) - digamma(beta.sum(1, keepdims=True))
        e_theta = digamma(gamma) - digamma(gamma.sum(1, keepdims=True))
        log_r = e_theta[:, None] + e_phi.T[words]
        r = np.exp(log_r - logsumexp(log_r, axis=2, keepdims=True))
    return beta, gamma, r


def hidden_markov(x, k):
    initial = torch.full((k,), 1.0 / k)
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(k, k) + torch.eye(k)).to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(k), 5.0).to_event(1))
    z = None
    for t in pyro.markov(range(len(x))):
        z = pyro.sample(f"z_{t}", dist.Categorical(initial if z is None else rows[z]))
        pyro.sample(f"x_{t}", dist.Normal(mu[z], 1.0), obs=x[t])


def hidden_markov_by_hand(x, m, sweeps=200):
    """From component means m with no spread; the chain is one factor, by scaled forward and backward sums."""
    k, t = len(m), len(x)
    prior = np.ones((k, k)) + np.eye(k)
    alpha, v = prior, np.full(k, 1e-300)
    for _ in range(sweeps):
        e_rows = digamma(alpha) - digamma(alpha.sum(1, keepdims=True))
        emission = -0.5 * ((x[:, None] - m) ** 2 + v) - 0.5 * np.log(2 * np.pi)
        forward = [np.log(np.full(k, 1 / k)) + emission[0]]
        for i in range(1, t):
            forward.append(logsumexp(forward[-1][:, None] + e_rows, axis=0) + emission[i])
        backward = [np.zeros(k)]
        for i in range(t - 1, 0, -1):
            backward.insert(0, logsumexp(e_rows + emission[i] + backward[0], axis=1))
        total = logsumexp(forward[-1])
        r = np.exp(np.array(forward) + np.array(backward) - total)
        pairs = np.array(
            [np.exp(forward[i][:, None] + e_rows + emission[i + 1] + backward[i + 1] - total) for i in range(t - 1)]
        )
        alpha = prior + pairs.sum(0)
        v = 1 / (1 / 25 + r.sum(0))
        m = v * (r.T @ x)
    return alpha, m, v, r
