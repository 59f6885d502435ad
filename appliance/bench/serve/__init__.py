"""Our engine against llama.cpp's own server: the same library files, weights, prompts and limits, in alternation.

`cases` says what is compared under which load; `plans` and `running` are the servers, `workloads`, `client` and `http`
the load; `metrics` makes figures of what came, `rounds` alternates, `rows` holds the bounds, `render` and `plot` show
the result, and `serve` puts it together.

What is not the same as in production: our cell runs the production code with a real notary process, but without the
confinement stub, NGINX and the tunnel; those are measured by `appliance bench path`. Its receipts say so.
"""
