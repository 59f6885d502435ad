"""What receipts cost: signing and making them durable in the notary, admission and the log in control, proofs.

`sessions` loads a real notary through its socket, `disk` is what the disk alone would do; `grown` fills a control with as many
leaves as are asked for, `control_process` admits really signed receipts into it and proves them, `admission` runs one such process
for each size in alternation; `rows` holds the bounds, `render` shows the result, and `receipts` puts it together.

What is not the same as in production: SSH between node and control is left out, and a large log is filled with made-up hashes and
rows. The rows of old receipts have no text (as after retention); every index over them is as large as it would be.
"""
