"""This project's mark inside the engine that samples: whole distributions, full strength.

One file for each engine, imported by whoever has that engine installed: `huggingface`
(transformers), `llama_cpp` (llama-cpp-python), `vllm_v2` and `vllm_v1` (vLLM's two plug-in
interfaces). All mark with the record of an ordinary key file, and all choose by the law of
`watermark.schemes.CopulaSampler`, which they share or are held against.

Rule 1: the mark is made on the distribution that is sampled from, after temperature, top-k and
top-p. Where an engine calls a plug-in before those, the plug-in does them itself. Rule 2: a
context is marked once in a reply, and not at all where it occurs in the prompt, since the engine
cannot tell which of it the model wrote. Rule 3: nothing at temperature 0 is marked.
"""
