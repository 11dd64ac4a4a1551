import weakref

from ntk_propulsion.runs.memory import return_free_memory


class Circle:
    def __init__(self):
        self.itself = self


def test_what_only_refers_to_itself_is_freed():
    left = weakref.ref(Circle())
    return_free_memory()
    assert left() is None
