"""The cells of the course, written out as equations: the reference that torch's kernels are held against."""

import torch


def affine(part, x, h):
    return part.b + part.U @ x + part.w @ h


def simple(parts, x, state, activation=torch.tanh):
    (h,) = state
    return (activation(affine(parts["h"], x, h)),)


def lstm(parts, x, state):
    h, c = state
    i = torch.sigmoid(affine(parts["i"], x, h))
    f = torch.sigmoid(affine(parts["f"], x, h))
    new_memory = torch.tanh(affine(parts["g"], x, h))
    o = torch.sigmoid(affine(parts["o"], x, h))
    c = f * c + i * new_memory
    return o * torch.tanh(c), c


def gru(parts, x, state):
    (h,) = state
    u = torch.sigmoid(affine(parts["u"], x, h))
    r = torch.sigmoid(affine(parts["r"], x, h))
    p = parts["h"]
    new = torch.tanh(p.b + p.U @ x + r * (p.w @ h + p.b_r))
    return (u * h + (1 - u) * new,)


def equations(net):
    """The equations of a network, by its class and activation."""
    if type(net).__name__ == "RNN":
        activation = {"tanh": torch.tanh, "relu": torch.relu}[net.activation]
        return lambda parts, x, state: simple(parts, x, state, activation)
    return {"LSTM": lstm, "GRU": gru}[type(net).__name__]


def states(net, parts, x, start=None):
    """The states of one layer after each step of one sequence (T, inputs)."""
    size = 2 if type(net).__name__ == "LSTM" else 1
    state = tuple(x.new_zeros(net.hidden) for _ in range(size)) if start is None else start
    found = []
    for x_t in x:
        state = equations(net)(parts, x_t, state)
        found.append(state)
    return found


def run(net, x):
    """The top layer's output (T, hidden · directions), and the last states of all layers and directions."""
    last = []
    for layer in range(net.layers):
        ways = []
        for backward in range(net.directions):
            found = states(net, net.parts(layer, backward=bool(backward)), x.flip(0) if backward else x)
            h = torch.stack([s[0] for s in found])
            ways.append(h.flip(0) if backward else h)
            last.append(found[-1])
        x = torch.cat(ways, 1)
    return x, [torch.stack(s) for s in zip(*last)]
