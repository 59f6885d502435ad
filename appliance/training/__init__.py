"""How the shipped model was made: `python -m appliance.training`. Nothing at run time imports this.

In order: `tokenizer` (trained on generated text), `network` (the llama architecture in PyTorch), `batches`, `train`
(the loop), `export` (GGUF). It needs the extra `torch-extra`; `tokenizer` and `export` alone do not.
"""
