"""Real data that is already on the machine: nothing here opens a connection.

`python_docstrings` collects the documentation of Python, NumPy and SciPy as thousands of short
texts; `tf_idf` turns texts into unit vectors, one a row, the form that mixtures of directions take.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import re
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse

from pyprobe._validate import check_positive_int
from pyprobe.errors import DomainError

__all__ = ["STOP_WORDS", "Document", "python_docstrings", "tf_idf"]

STOP_WORDS = frozenset(
    "a all also an and any are as at be been but by can does each for from given has have if in "
    "into is it its may more must no not of on one only or other otherwise same see set should so "
    "some such than that the their them then there these they this to two use used uses using "
    "was we when where which will with you your".split()
)
"""English words too common to tell one text from another."""

_SKIPPED_FOLDERS = frozenset(
    "__pycache__ _vendor dist-packages idlelib lib2to3 site-packages test tests turtledemo".split()
)
_WORD = re.compile(r"[A-Za-z]{2,}")
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The documentation of one module, class or function.

    Attributes
    ----------
    name : str
        Dotted name, such as ``scipy.optimize._root.root``.
    module : str
        The module that holds it, such as ``scipy.optimize._root``.
    text : str
        The docstring, its indentation removed.
    """

    name: str
    module: str
    text: str


def python_docstrings(*, min_words: int = 20) -> list[Document]:
    """Collect the docstrings of the Python standard library, NumPy and SciPy.

    The installed source files are parsed, never imported. The order is that of the file names and
    of the lines within a file; of equal texts the first stays. The documents are those of the
    installed versions, so their number differs a little from one machine to the next.

    Parameters
    ----------
    min_words : int, default 20
        Shorter docstrings are left out.

    Returns
    -------
    list of Document
        About seven thousand with NumPy 2 and SciPy 1.

    Notes
    -----
    The first call reads some three thousand files, which takes several seconds; later calls in the
    same process are free. Docstrings that compiled modules attach are not seen.

    Examples
    --------
    >>> from pyprobe.datasets import python_docstrings
    >>> documents = python_docstrings()
    >>> len(documents) > 3000
    True
    >>> next(d.text[:36] for d in documents if d.name == "statistics.fmean")
    'Convert data to floats and compute t'
    """
    min_words = check_positive_int("min_words", min_words)
    return [d for d in _all_docstrings() if len(_WORD.findall(d.text)) >= min_words]


def tf_idf(
    documents: Sequence[str | Document],
    *,
    min_df: int = 2,
    max_df: float = 0.2,
    stop_words: Collection[str] = STOP_WORDS,
) -> tuple[scipy.sparse.csr_array, npt.NDArray[np.str_]]:
    r"""Turn texts into unit vectors of weighted word counts.

    Word :math:`j`, which occurs :math:`t_{ij} > 0` times in document :math:`i` and at all in
    :math:`n_j` of the :math:`n` documents, gets the weight

    .. math:: x_{ij} \propto (1 + \ln t_{ij})\,\Bigl(1 + \ln\frac{1 + n}{1 + n_j}\Bigr),

    and each row is divided by its Euclidean norm.

    Parameters
    ----------
    documents : sequence of str or Document
        The texts. A word is a run of two or more letters; case is ignored.
    min_df : int, default 2
        Words in fewer documents than this are left out.
    max_df : float, default 0.2
        Words in more than this fraction of the documents are left out.
    stop_words : collection of str
        Left out as well; lower case.

    Returns
    -------
    x : scipy.sparse.csr_array, shape (n_documents, n_words)
        Unit rows, float64.
    vocabulary : ndarray of str, shape (n_words,)
        The words of the columns, in alphabetical order.

    Raises
    ------
    DomainError
        If a document keeps no word, for it has no direction.
    TypeError
        If they are not texts.

    References
    ----------
    .. [1] G. Salton and C. Buckley, "Term-weighting approaches in automatic text retrieval",
       Information Processing & Management 24(5), 1988, doi:10.1016/0306-4573(88)90021-0.

    Examples
    --------
    >>> from pyprobe.datasets import tf_idf
    >>> x, vocabulary = tf_idf(["red rose", "red wine", "white wine"], min_df=1, max_df=1.0)
    >>> vocabulary.tolist()
    ['red', 'rose', 'white', 'wine']
    >>> x.toarray().round(2)
    array([[0.61, 0.8 , 0.  , 0.  ],
           [0.71, 0.  , 0.  , 0.71],
           [0.  , 0.  , 0.8 , 0.61]])
    """
    if isinstance(documents, str | bytes) or not all(
        isinstance(document, str | Document) for document in documents
    ):
        raise TypeError("'documents' must be a sequence of str or Document, one a text.")
    min_df = check_positive_int("min_df", min_df)
    if not 0 < max_df <= 1:
        raise DomainError(f"'max_df' must lie in (0, 1]; got {max_df}.")
    n = len(documents)
    counts = [Counter(word.lower() for word in _WORD.findall(_text(d))) for d in documents]
    frequency = Counter(word for count in counts for word in count)
    stopped = frozenset(stop_words)
    vocabulary = sorted(
        word for word, k in frequency.items() if min_df <= k <= max_df * n and word not in stopped
    )
    column = {word: j for j, word in enumerate(vocabulary)}

    kept = [sorted((column[w], t) for w, t in count.items() if w in column) for count in counts]
    indptr = np.cumsum([0, *map(len, kept)])
    if n and (empty := np.flatnonzero(np.diff(indptr) == 0)).size:
        raise DomainError(
            f"'documents' must each keep a word: document {empty[0]} keeps none of "
            f"{sum(counts[empty[0]].values())}. Drop it, or lower min_df or raise max_df."
        )
    entries = np.array([entry for row in kept for entry in row], dtype=np.int64).reshape(-1, 2)
    indices, count = entries.T
    n_with_word = np.array([frequency[word] for word in vocabulary], dtype=np.float64)
    data = (1 + np.log(count)) * (1 + np.log((1 + n) / (1 + n_with_word)))[indices]
    row = np.repeat(np.arange(n), np.diff(indptr))
    data /= np.sqrt(np.bincount(row, data**2, minlength=n))[row]
    x = scipy.sparse.csr_array((data, indices, indptr), shape=(n, len(vocabulary)))
    return x, np.array(vocabulary, dtype=np.str_)


def _text(document: str | Document) -> str:
    return document.text if isinstance(document, Document) else document


@lru_cache(maxsize=1)
def _all_docstrings() -> tuple[Document, ...]:
    seen: set[str] = set()
    documents: list[Document] = []
    with _collector_paused():
        for prefix, folder in _source_folders():
            for path in sorted(folder.rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                if _SKIPPED_FOLDERS.isdisjoint(parts):
                    module = ".".join(p for p in (prefix, *parts) if p not in ("", "__init__"))
                    for document in _docstrings_of(path, module):
                        words = " ".join(document.text.split())
                        if words not in seen:
                            seen.add(words)
                            documents.append(document)
    return tuple(documents)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection: syntax trees hold no cycles, and walking them doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _source_folders() -> Iterator[tuple[str, Path]]:
    yield "", Path(sysconfig.get_path("stdlib"))
    for package in ("numpy", "scipy"):
        spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
        if spec is not None and spec.origin is not None:
            yield package, Path(spec.origin).parent


def _docstrings_of(path: Path, module: str) -> Iterator[Document]:
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return  # a template, or a file of another Python

    def walk(node: ast.AST, name: str) -> Iterator[Document]:
        if isinstance(node, _DEFINITIONS):
            name = f"{name}.{node.name}"
        if isinstance(node, (ast.Module, *_DEFINITIONS)) and (text := ast.get_docstring(node)):
            yield Document(name=name, module=module, text=text)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from walk(child, name)

    yield from walk(tree, module)
