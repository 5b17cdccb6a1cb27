"""The data that the demo and the gallery run on."""

import gc
import importlib
import inspect
import sys

import numpy as np
import pytest
import scipy.sparse

from pyprobe.datasets import Document, python_docstrings, tf_idf
from pyprobe.errors import DomainError


@pytest.fixture(scope="module")
def documents():
    return python_docstrings()


def test_thousands_of_distinct_documents_of_all_three_packages_are_found(documents):
    packages = [document.module.partition(".")[0] for document in documents]
    assert len({document.text for document in documents}) == len(documents) > 5000
    assert packages.count("scipy") > 1000
    assert packages.count("numpy") > 500
    assert len(documents) - packages.count("scipy") - packages.count("numpy") > 1000


def test_documents_come_in_the_order_of_their_files(documents):
    modules = [document.module for document in documents]
    first_seen = list(dict.fromkeys(modules))
    blocks = [module for i, module in enumerate(modules) if i == 0 or modules[i - 1] != module]
    assert blocks == first_seen


@pytest.mark.parametrize(
    ("module", "name"),
    [("statistics", "fmean"), ("fractions", "Fraction.limit_denominator"), ("heapq", None)],
)
def test_a_document_is_what_python_itself_shows(documents, module, name):
    path = module if name is None else f"{module}.{name}"
    found = next(document for document in documents if document.name == path)
    target = importlib.import_module(module)
    for part in [] if name is None else name.split("."):
        target = getattr(target, part)
    assert found.module == module
    assert found.text == inspect.getdoc(target)


def test_collecting_imports_no_module_it_reads(documents):
    assert "scipy.io.matlab" in {document.module.rpartition("._")[0] for document in documents}
    assert "turtle" not in sys.modules
    assert "antigravity" not in sys.modules
    assert gc.isenabled()


def test_min_words_bounds_every_text_from_below():
    texts = [document.text for document in python_docstrings(min_words=100)]
    assert texts
    assert all(len(text.split()) >= 50 for text in texts)
    with pytest.raises(DomainError, match="'min_words' must be at least 1; got 0"):
        python_docstrings(min_words=0)


def test_tf_idf_has_the_weights_of_its_formula():
    x, vocabulary = tf_idf(["a cat cat dog", "dog", "bird dog"], min_df=1, max_df=1.0)
    assert vocabulary.tolist() == ["bird", "cat", "dog"]
    rare, common = 1 + np.log(4 / 2), 1 + np.log(4 / 4)
    row = np.array([0, (1 + np.log(2)) * rare, common])
    expected = [row / np.linalg.norm(row), [0, 0, 1], np.array([rare, 0, common])]
    expected[2] /= np.linalg.norm(expected[2])
    np.testing.assert_allclose(x.toarray(), expected, rtol=1e-15)


def test_tf_idf_of_the_docstrings_has_unit_rows_in_tens_of_thousands_of_dimensions(documents):
    x, vocabulary = tf_idf(documents)
    assert isinstance(x, scipy.sparse.csr_array)
    assert x.shape == (len(documents), len(vocabulary))
    assert x.shape[1] > 8000
    assert x.has_canonical_format
    np.testing.assert_allclose(scipy.sparse.linalg.norm(x, axis=1), 1, rtol=1e-14)
    assert vocabulary.tolist() == sorted(set(vocabulary.tolist()))
    assert x.nnz < 0.01 * np.prod(x.shape)


def test_tf_idf_takes_documents_and_strings_alike(documents):
    few = documents[:50]
    from_documents, words = tf_idf(few)
    from_strings, same_words = tf_idf([document.text for document in few])
    assert (words == same_words).all()
    assert (from_documents != from_strings).nnz == 0


def test_tf_idf_keeps_words_within_the_bounds_of_document_frequency():
    texts = ["common rare", "common middle", "common middle", "common the middle other"]
    assert tf_idf(texts, min_df=1, max_df=1.0)[1].tolist() == ["common", "middle", "rare"]
    assert tf_idf(texts, min_df=2, max_df=1.0)[1].tolist() == ["common", "middle"]
    with pytest.raises(DomainError, match="document 0 keeps none of 2"):
        tf_idf(texts, min_df=2, max_df=0.75)
    with pytest.raises(DomainError, match=r"'max_df' must lie in \(0, 1\]; got 2"):
        tf_idf(texts, max_df=2)


def test_tf_idf_of_no_text_is_an_empty_matrix():
    x, vocabulary = tf_idf([])
    assert x.shape == (0, 0)
    assert vocabulary.shape == (0,)


def test_a_document_is_frozen():
    document = Document(name="m.f", module="m", text="text")
    with pytest.raises(AttributeError):
        document.text = "other"
