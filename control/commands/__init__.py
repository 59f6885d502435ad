"""The verbs of `appliance control`, one file per noun. Each module has `add_parsers(actions)`.

A parser's `handler` takes the parsed arguments and returns a JSON object, which is printed for `--json`, and otherwise
as lines for people.
"""
