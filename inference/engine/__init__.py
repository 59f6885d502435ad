"""The engine: one pinned model, the KV streams of one client's sessions, batched decoding, proven erase.

Reading order: `engine` (the API, a thread behind it), `admission` (who gets a stream), `loading` (from a pin to a runner),
`runner` (one step), `scheduler` with `gaps` and `pace` (who is in it), `llama` (the only module that knows llama.cpp),
`sampler` and `logprobs` (what is made of logits), `erase` with `state_blob`, then `template`, `vocabulary` and `text` for what
is words.
"""
