"""A stand-in for vLLM's OpenAI-compatible server, so that roles, router and dashboards run without a GPU.

Imitates: `vllm serve` with the flags that this project uses (others are refused, as vLLM refuses them), its endpoints,
error bodies and metric names; queueing by --max-num-seqs; speed from a prediction file; refusal to start without its
GPUs, their memory or its model files; death when a GPU is lost.
Does NOT imitate: a model (see answers.py), tokenisation (a token is six characters), scheduling by KV blocks,
prefix caching,
preemption, LoRA, structured output, tool calls, beam search, start-up time of real weights, multi-process workers.
"""

__version__ = "0.20.2+standin"
