"""Networks: shapes, parts, and initial weights that depend on a seed alone."""

import pytest
import torch

from probdl.nn import CNN, MLP, TransposedCNN, seeded


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 5, 7), (1, 28, 28), (2, 31, 18)])
def test_the_transposed_cnn_returns_exactly_the_shape_that_the_cnn_takes(shape, device, dtype):
    encoder, decoder = CNN(shape, 6).to(device, dtype), TransposedCNN(6, shape).to(device, dtype)
    x = torch.randn(3, *shape, dtype=dtype, device=device)
    code = encoder(x)
    assert code.shape == (3, 6)
    assert decoder(code).shape == x.shape


def test_every_pixel_reaches_the_code_and_every_code_reaches_every_pixel(device, dtype):
    encoder, decoder = CNN((1, 9, 10), 2).to(device, dtype), TransposedCNN(2, (1, 9, 10)).to(device, dtype)
    x = torch.randn(1, 1, 9, 10, dtype=dtype, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(encoder(x).sum(), x)
    # Halving an odd side drops its last row or column only where no window of the convolution reaches it.
    assert (grad != 0).all()
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(z)[0], torch.randn(1, 2, dtype=dtype).to(device))
    assert (jacobian.abs().sum((-1, -2)) > 0).all()


def test_an_mlp_without_hidden_layers_is_one_affine_map(device, dtype):
    net = MLP((2, 3), (4,), hidden=()).to(device, dtype)
    x, y = torch.randn(2, 5, 2, 3, dtype=dtype, device=device)
    torch.testing.assert_close(net(x) - net(y), net(x - y) - net(torch.zeros_like(x)))
    assert sum(p.numel() for p in net.parameters()) == 6 * 4 + 4


def test_an_mlp_maps_between_shapes(device, dtype):
    net = MLP((1, 8, 8), (2, 3), hidden=(5, 7)).to(device, dtype)
    assert net(torch.zeros(4, 1, 8, 8, dtype=dtype, device=device)).shape == (4, 2, 3)
    assert [p.shape[0] for p in net.parameters()] == [5, 5, 7, 7, 6, 6]


def test_initial_weights_follow_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    nets = []
    for seed in (1, 1, 2):
        with seeded(seed):
            nets.append(MLP(3, 2).layers[0].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


@pytest.mark.parametrize("shape", [(8, 8), (1, 3, 8), (1, 8, 8, 8)])
def test_an_image_must_have_channels_and_sides_of_at_least_four(shape):
    with pytest.raises(ValueError, match="shape must be"):
        CNN(shape, 2)


def test_too_many_halvings_are_refused():
    with pytest.raises(ValueError, match="too small to be halved 4 times"):
        TransposedCNN(2, (1, 8, 8), channels=(8, 8, 8, 8))


@pytest.mark.parametrize("hidden", [(0,), (3.5,), (-1, 2)])
def test_widths_must_be_positive_integers(hidden):
    with pytest.raises(ValueError, match="hidden must be positive integers"):
        MLP(2, 2, hidden=hidden)
