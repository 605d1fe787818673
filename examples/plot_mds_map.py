r"""
A map from distances alone
==========================

A road atlas has a table of distances between cities. Can the map be had back from it? *Classical multidimensional
scaling* (Torgerson, 1952) says yes, if the distances δ are those of points in a plane. With :math:`J = I - 11^T/n`,

.. math:: B = -\tfrac12 J Δ^2 J = V Λ V^T, \qquad Y = V_2 Λ_2^{1/2},

where :math:`Δ^2` holds the squares: B are then the inner products of the centred points, and two eigenvalues are
positive. But cities lie on a sphere, of which no map keeps all distances (Gauss, 1827). How much is lost, and how would
the table itself tell?
"""

# %%
# Twenty cities by latitude and longitude, and their great-circle distances in km.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from probdl.models import MDS

CITIES = {
    "Athens": (37.98, 23.73), "Barcelona": (41.39, 2.17), "Berlin": (52.52, 13.40), "Bucharest": (44.43, 26.10),
    "Copenhagen": (55.68, 12.57), "Dublin": (53.35, -6.26), "Edinburgh": (55.95, -3.19), "Helsinki": (60.17, 24.94),
    "Istanbul": (41.01, 28.98), "Kyiv": (50.45, 30.52), "Lisbon": (38.72, -9.14), "London": (51.51, -0.13),
    "Madrid": (40.42, -3.70), "Moscow": (55.76, 37.62), "Oslo": (59.91, 10.75), "Paris": (48.86, 2.35),
    "Rome": (41.90, 12.50), "Stockholm": (59.33, 18.07), "Vienna": (48.21, 16.37), "Warsaw": (52.23, 21.01),
}  # fmt: skip
RADIUS = 6371.0


def on_the_sphere(places):
    latitude, longitude = np.radians(places).T
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)


def great_circles(places):
    x = on_the_sphere(places)
    found = RADIUS * np.arccos(np.clip(x @ x.T, -1, 1))
    np.fill_diagonal(found, 0)
    return (found + found.T) / 2


places = np.array(list(CITIES.values()))
distances = great_circles(places)
print(pd.DataFrame(distances, CITIES, CITIES).iloc[:4, :4].round().astype(int))

# %%
# The two largest eigenvalues make the map. The table knows that the earth is round: eigenvalues beyond the second are
# not zero, and some are negative, which no points of any space could give.

model = MDS(2, precomputed=True).fit(distances)
print((model.eigenvalues / 1e6).round(decimals=3)[[0, 1, 2, 3, -2, -1]].tolist(), "(10⁶ km²; first four, last two)")
print(f"goodness {model.goodness:.4f}, stress {model.stress!r}")
print(*model.notes, sep="\n")

# %%
# The answer is known up to a turn and a mirror. As the true map we take the *azimuthal equidistant* projection about
# the middle of the cities, which keeps distances from that point. Procrustes analysis turns ours onto it, without
# stretching.


def azimuthal(places):
    x = on_the_sphere(places)
    middle = x.mean(0) / np.linalg.norm(x.mean(0))
    east = np.cross([0, 0, 1], middle)
    east /= np.linalg.norm(east)
    flat = np.stack([x @ east, x @ np.cross(middle, east)], 1)
    return RADIUS * np.arccos(x @ middle)[:, None] * flat / np.linalg.norm(flat, axis=1, keepdims=True)


def turned(points, target):
    """Return points turned and mirrored onto a target, by the singular vectors of their cross-products."""
    u, _, v = np.linalg.svd((points - points.mean(0)).T @ (target - target.mean(0)))
    return (points - points.mean(0)) @ u @ v + target.mean(0)


truth = azimuthal(places)
ours = turned(model.Y.numpy(), truth)
error = np.linalg.norm(ours - truth, axis=1)

figure, ax = plt.subplots(figsize=(8, 6), layout="constrained")
ax.scatter(*truth.T, s=60, facecolors="none", edgecolors="#666666", label="known map")
ax.scatter(*ours.T, s=14, color="#D55E00", label="from distances")
for name, (x, y) in zip(CITIES, ours):
    ax.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
ax.set(xlabel="east (km)", ylabel="north (km)", aspect="equal")
ax.spines[["top", "right"]].set_visible(False)
ax.margins(x=0.1)
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.12, 0))
plt.show()

# %%
# **The known answer beside ours.** The root mean square error of the map in km, for four tables. Straight lines through
# the earth are distances of points in space, so that three dimensions give them back exactly, to rounding. The same
# cities moved to a hundredth of their distance from the middle lie on nearly flat ground, and the map is exact to
# millimetres. Errors of measurement add their own: rounding each distance to 100 km, an error of 29 km, leaves one of
# 18 km on the map, since each city has nineteen distances.


def root_mean_square(points, target):
    return np.sqrt(np.square(turned(points, target) - target).sum(1).mean())


def report(name, table, target, dim):
    found = MDS(dim, precomputed=True).fit(table)
    values = found.eigenvalues.numpy()
    negative = -values[values < 0].sum() / np.abs(values).sum()
    return [name, dim, f"{root_mean_square(found.Y.numpy(), target):.3g}", f"{max(negative, 0):.1e}"]


chords = RADIUS * np.linalg.norm(on_the_sphere(places)[:, None] - on_the_sphere(places), axis=2)
near = places.mean(0) + (places - places.mean(0)) / 100
rounded = distances.round(-2)
table = pd.DataFrame(
    [
        report("great circles", distances, truth, 2),
        report("straight lines through the earth", chords, RADIUS * on_the_sphere(places), 3),
        report("a hundredth of the size", great_circles(near), azimuthal(near), 2),
        report("great circles, rounded to 100 km", rounded, truth, 2),
    ],
    columns=["distances", "dimensions", "error (km)", "negative share"],
)
print(table.to_string(index=False))
print(
    f"Europe is {distances.max():.0f} km wide; the worst city is {list(CITIES)[error.argmax()]}, {error.max():.0f} km"
)

# %%
# Two kilometres on a continent of four thousand: the curvature of the earth hardly matters at this size. Without a map
# to compare with, the eigenvalues say so: the first two are hundreds of times the rest. Negative ones say that no space
# with straight lines fits, because of curvature in the first table and because of rounding in the last, where their
# share is twelve times as large: they show that something is wrong, and not what.
