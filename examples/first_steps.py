# %% [markdown]
# # First steps in Python
#
# Simulate a small scan, reconstruct it, compare the result with the physical limit, and see
# what fewer photons would have cost. Nothing here needs DVC or `params.yaml`. The file
# is a notebook: open it in JupyterLab (`pip install jupyterlab`) as one, or run it as it is.

# %%
import matplotlib.pyplot as plt
import numpy as np

import fly64_dose_overlap as fdo

# %% [markdown]
# ## A scan
#
# A raster of 5 px pitch over a square of 80 px, 10,000 photons in each frame. `scan` holds
# what an instrument records, and what a method may see: counts, probe and positions. The true
# object comes separately.

# %%
scan, truth = fdo.simulate(photons_per_frame=1e4, seed=1, field_px=80)
print(f"{len(scan)} frames of {scan.side} x {scan.side} pixels, object {scan.object_shape}")
print(f"{scan.photons_per_frame:,.0f} photons per frame")

# %%
light = scan.illumination()
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
images = (
    ("counts of frame 0, log(1 + n)", np.log1p(scan.counts[0])),
    ("phase of the object (rad)", np.angle(truth)),
    ("illumination (photons per pixel)", light),
)
for panel, (title, image) in zip(axes, images, strict=True):
    figure.colorbar(panel.imshow(image), ax=panel, shrink=0.8)
    panel.set(title=title)
plt.show()

# %% [markdown]
# ## Two reconstructions
#
# Maximum likelihood (`ml`) uses the counts alone. Maximum a posteriori (`map`) adds total
# variation as a prior, and chooses its weight by the likelihood of held-out photons, without the
# truth. `fdo.methods()` lists all methods.

# %%
print(", ".join(fdo.methods()))
ml = fdo.reconstruct(scan, "ml", epochs=30)
map_ = fdo.reconstruct(scan, "map", epochs=30)
for result in (ml, map_):
    print(fdo.score(result, truth))

# %%
map_.plot()
plt.show()

# %% [markdown]
# ## How far from the limit?
#
# The Cramer-Rao bound is the least error of an unbiased method; one with a prior may fall below
# it, and the bound to compare with is then the Bayesian one, for a Gaussian prior with the contrast
# of the object. Total variation knows more of this object than that, its edges, and may beat that too.

# %%
limit = fdo.limit(scan, truth)
dose = scan.photons_per_frame
print(f"limit of an unbiased method {limit.psnr_db('phase', dose):.2f} dB")
print(f"limit with a Gaussian prior {limit.psnr_db('phase', dose, prior=True):.2f} dB")

# %% [markdown]
# ## Fewer photons
#
# Keeping each photon with some probability gives the very counts that a lower dose would have
# given. One limit serves all doses.

# %%
fractions = (0.1, 0.3)
scans = [fdo.thin(scan, fraction) for fraction in fractions] + [scan]
results = [fdo.reconstruct(each, "ml", epochs=30) for each in scans[:-1]] + [ml]
doses = np.array([each.photons_per_frame for each in scans])
reached = [fdo.score(result, truth).phase_psnr_db for result in results]

figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
panel.plot(doses, reached, "o-", label="maximum likelihood")
for label, prior in (("limit, unbiased", False), ("limit with a Gaussian prior", True)):
    panel.plot(doses, [limit.psnr_db("phase", dose, prior=prior) for dose in doses], "--", label=label)
panel.set(xscale="log", xlabel="photons per frame", ylabel="phase PSNR (dB)")
panel.legend()
plt.show()
