"""Published errors on the tasks of bAbI with 1,000 questions, in percent.

Sukhbaatar et al. 2015, "End-to-end memory networks", table 1: the best of ten runs by training
loss. Its LSTM is that of Weston et al. 2016.
"""

# fmt: off
# three hops, position encoding, linear start, random noise; all tasks jointly
JOINT = (
    0.0, 11.4, 21.9, 13.4, 14.4, 2.8, 18.3, 9.3, 1.9, 6.5,
    0.3, 0.1, 0.2, 6.9, 0.0, 2.7, 40.4, 9.4, 88.0, 0.0,
)
# the same, one model a task
SINGLE = (
    0.0, 8.3, 40.3, 2.8, 13.1, 7.6, 17.3, 10.0, 13.2, 15.1,
    0.9, 0.2, 0.4, 1.7, 0.0, 1.3, 51.0, 11.1, 82.8, 0.0,
)
ONE_HOP = (
    0.8, 62.0, 76.9, 22.8, 11.0, 7.2, 15.9, 13.2, 5.1, 10.6,
    8.4, 0.4, 6.3, 36.9, 46.4, 47.4, 44.4, 9.6, 90.7, 0.0,
)
TWO_HOPS = (
    0.0, 15.6, 31.6, 2.2, 13.4, 2.3, 25.4, 11.7, 2.0, 5.0,
    1.2, 0.0, 0.2, 8.1, 0.5, 51.3, 41.2, 10.3, 89.9, 0.1,
)
LSTM = (
    50.0, 80.0, 80.0, 39.0, 30.0, 52.0, 51.0, 55.0, 36.0, 56.0,
    38.0, 26.0, 6.0, 73.0, 79.0, 77.0, 49.0, 48.0, 92.0, 9.0,
)
# fmt: on


def row(source: str, errors: tuple[float, ...]) -> dict:
    """Published errors in the form of the app's figures.

    >>> row("", (2.0, 10.0))
    {'error': 0.06, 'tasks_above_5': 1, 'error_1': 0.02, 'error_2': 0.1, 'source': ''}
    """
    of_tasks = {f"error_{k}": round(error / 100, 3) for k, error in enumerate(errors, start=1)}
    return {
        "error": round(sum(errors) / len(errors) / 100, 3),
        "tasks_above_5": sum(error > 5 for error in errors),
        **of_tasks,
        "source": source,
    }


_PAPER = "Sukhbaatar et al. 2015"
ROWS = {
    "babi": row(f"memory network, three hops, {_PAPER}", JOINT),
    "babi, single": row(f"memory network, three hops, one model a task, {_PAPER}", SINGLE),
    "babi, hops_1": row(f"memory network, one hop, {_PAPER}", ONE_HOP),
    "babi, hops_2": row(f"memory network, two hops, {_PAPER}", TWO_HOPS),
    "babi, lstm": row("LSTM, one model a task, Weston et al. 2016", LSTM),
    "babi_10k": {
        "error": 0.075,
        "tasks_above_5": 6,
        "source": f"memory network, all tasks jointly, with task 3, {_PAPER}",
    },
}
