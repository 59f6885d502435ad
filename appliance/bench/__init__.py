"""What the product's parts cost, measured on this machine and printed in one common form.

`{"ok", "checks": [{"name", "value", "bound", "unit", "n", "ok"}], "control": {"name", "ok"}}`: `bound` is null where a figure
is only reported; `control` is the positive control of the same run.
"""
