"""A stand-in for bge-m3 in a real Triton server: unit vectors in which texts that share words are near.

Does NOT imitate: the model, its tokenizer, sparse and multi-vector outputs, a GPU, batching gains.
The real server, HTTP front end, dynamic batching and Python back end are not stand-ins.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np
import triton_python_backend_utils as pb_utils

DIMENSIONS = 1024
TOKEN = re.compile(r"[a-z0-9äöüß]+")


@lru_cache(maxsize=8192)
def direction(token):
    """One fixed direction per word, equal on every machine."""
    return (
        np.frombuffer(hashlib.shake_256(token.encode()).digest(DIMENSIONS), dtype=np.uint8).astype(np.float32) - 127.5
    )


def embed(text):
    """The unit vector of a text."""
    total = np.sum([direction(token) for token in TOKEN.findall(text.lower()) or ["empty"]], axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class TritonPythonModel:
    """What Triton calls."""

    def execute(self, requests):
        """One answer per request; each carries a batch of texts."""
        answers = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "input_text").as_numpy().reshape(-1)
            vectors = np.stack([embed(text.decode("utf-8", "replace")) for text in texts])
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("embedding", vectors)]))
        return answers
