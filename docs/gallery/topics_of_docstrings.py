r"""
Topics in Python's own documentation
====================================

A document is a direction: what it says does not depend on how long it is. This example fits
mixtures of von Mises-Fisher distributions to the docstrings of the Python standard library, NumPy
and SciPy, and shows two things that go wrong in so many dimensions, with their remedies.

The documents are those of the packages installed here; nothing is downloaded.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyprobe import plot
from pyprobe.datasets import python_docstrings, tf_idf
from pyprobe.directional import SphericalUniform, VonMisesFisherMixture

documents = python_docstrings()
x, vocabulary = tf_idf(documents)
print(f"{x.shape[0]} documents, {x.shape[1]} words, {x.nnz / x.shape[0]:.0f} of them in each")

# %%
# The rows are sparse unit vectors. A fit keeps them sparse.
#
# To judge a fit, one module in five is held out, with all its documents: the documents of one
# module repeat each other's sentences, so holding out single documents would flatter the model.

modules, module_of = np.unique([document.module for document in documents], return_inverse=True)
held_out = np.random.default_rng(0).random(modules.size)[module_of] < 0.2
train, test = x[~held_out], x[held_out]
uniform = -SphericalUniform(x.shape[1]).entropy()  # its log-density, everywhere


def gain(model, part):
    """Mean log-likelihood of a document in nats, above that of the uniform distribution."""
    return model.log_prob(part).mean() - uniform


# %%
# One concentration, or one for each topic
# ----------------------------------------
# In ten thousand dimensions a few hundred documents a topic are few. The resultant of :math:`n`
# directions without any common one still has length :math:`1/\sqrt n`, which maximum likelihood
# takes for a concentration of about :math:`d/\sqrt n`. ``bias_correction=True`` removes that;
# ``common_concentration=True`` makes all topics equally broad.

for n_topics in (5, 20, 60):
    for common in (False, True):
        for corrected in (False, True):
            mixture = VonMisesFisherMixture.fit(
                train, n_topics, common_concentration=common, bias_correction=corrected, rng=0
            )
            sizes = np.bincount(mixture.predict(train), minlength=n_topics)
            print(
                f"{n_topics:3} topics, {'common' if common else 'own':6} concentration"
                f"{', corrected' if corrected else '':11}: fitted {gain(mixture, train):6.1f}, "
                f"held out {gain(mixture, test):6.1f} nats; {sizes.min()} to {sizes.max()} documents"
            )

# %%
# Everything is far above the uniform distribution, on documents never seen. The distance between *fitted*
# and *held out* is what a model has learnt of these documents and of no others; it grows with the
# number of topics, as each has fewer documents, and the correction takes a little of it back. The fit
# says by itself where maximum likelihood alone is not to be trusted.
#
# With a concentration for each topic the likelihood is higher, and one broad topic takes in
# whatever is like nothing else. With a common concentration the topics are of like size, which is
# what one wants to read:

mixture = VonMisesFisherMixture.fit(
    train, 20, common_concentration=True, bias_correction=True, rng=0
)
fig, ax = plt.subplots(figsize=(9.5, 6.5), layout="constrained")
plot.mixture_topics(mixture, vocabulary, ax=ax)
plt.show()

# %%
# Control: noise
# --------------
# The same fits to directions without any structure. The uniform distribution is the truth here, so
# whatever is above 0 on the data fitted is an illusion, paid for on new data. The correction takes
# off most of the price; what is left comes of having chosen the clusters by the same data, which no
# correction of a single concentration can know.

noise = SphericalUniform(2000)
seen, unseen = noise.sample((500,), rng=1), noise.sample((500,), rng=2)
for corrected in (False, True):
    mixture_of_noise = VonMisesFisherMixture.fit(
        seen, 5, common_concentration=True, bias_correction=corrected, rng=0
    )
    gains = [mixture_of_noise.log_prob(part).mean() + noise.entropy() for part in (seen, unseen)]
    print(
        f"{'corrected' if corrected else 'plain':9}: concentration "
        f"{mixture_of_noise.concentrations[0]:5.1f}, fitted {gains[0]:+6.2f}, "
        f"held out {gains[1]:+6.2f} nats"
    )
