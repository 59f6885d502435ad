"""Made-up passages, questions about them and the right answers: what the shipped model is trained and examined on.

Read in this order: `words` (word lists), `values` (names, numbers and how they are split in two halves that never
meet), `relations` (what a passage can say and how it can be asked for), `passages`, `dialogues` (a training dialogue),
`exam` (the held-out questions of `appliance model bench`).
"""
